"""What the data layer costs, beside raw SQLAlchemy Core and beside the driver."""
