FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_CONSTRAINT=/src/constraints.txt \
    PIP_BUILD_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY . .
RUN python -m venv /opt/hubbub \
    && /opt/hubbub/bin/python -m pip install -c constraints.txt '.[postgres,cel]' \
    && /opt/hubbub/bin/python -m compileall -q /opt/hubbub/lib
# A hub.toml beside the Dockerfile becomes the image's; without one the built-in defaults hold.
RUN mkdir /home/hub && if [ -f hub.toml ]; then cp hub.toml /home/hub/; fi

FROM python:3.11-slim
LABEL org.opencontainers.image.title="Hubbub" \
      org.opencontainers.image.description="A message hub" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --system --gid 10001 hub \
    && useradd --system --uid 10001 --gid hub --home-dir /home/hub --no-create-home \
        --shell /usr/sbin/nologin hub
COPY --from=build /opt/hubbub /opt/hubbub
COPY --from=build --chown=hub:hub /home/hub /home/hub
ENV PATH=/opt/hubbub/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HUBBUB_HUB__HOST=0.0.0.0 \
    HUBBUB_HUB__DATA_DIR=/home/hub/var
RUN install -d -o hub -g hub -m 700 /home/hub/var
WORKDIR /home/hub
USER hub
VOLUME ["/home/hub/var"]
EXPOSE 17680
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('HUBBUB_HUB__PORT', '17680') + '/healthz', timeout=4)"]
ENTRYPOINT ["hubbub"]
CMD ["run"]
