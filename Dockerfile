# Holdfast as an image: the application rooms and their locked dependencies, nothing else.
FROM python:3.13-slim

# PYTHONUNBUFFERED: a log line leaves the container when it is written, also when the worker is killed a moment later.
ENV PYTHONUNBUFFERED=1 \
    HOLDFAST_DATA_DIR=/data

# Fixed numbers, so that a mounted folder can be given to them.
RUN groupadd --gid 10001 holdfast \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin holdfast \
    && install --directory --owner=holdfast --group=holdfast --mode=0700 /data

WORKDIR /app

# Every dependency has a wheel: a missing one should end the build here, not ask for a compiler.
COPY requirements/worker.txt requirements/worker.txt
RUN pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements/worker.txt

# The code belongs to root: the worker cannot change what it runs.
COPY alembic.ini alembic.ini
COPY migrations migrations
COPY holdfast holdfast
COPY db db
COPY services services
COPY jobs jobs
COPY worker worker
# What `demo` imports.
COPY samples/tasks.csv samples/tasks.csv

USER 10001:10001

# The embedded database, the spool of uploaded files and the files of rejected rows.
VOLUME /data

# The worker answers SIGTERM by finishing or checkpointing its runs; give it more than its grace time before SIGKILL.
STOPSIGNAL SIGTERM

# No HEALTHCHECK: `python -m worker check` reads the configuration and says nothing about the process that runs here.

ENTRYPOINT ["python", "-m", "worker"]
CMD ["run"]
