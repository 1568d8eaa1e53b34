"""Of which engines a test is, where it asks for what the others do not have: it is not collected for those."""

import pytest

ON_SERVERS = pytest.mark.parametrize("settings", ["postgresql", "mariadb"], indirect=True)
ON_MARIADB = pytest.mark.parametrize("settings", ["mariadb"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
NOT_ON_MARIADB = pytest.mark.parametrize("settings", ["sqlite", "postgresql"], indirect=True)
