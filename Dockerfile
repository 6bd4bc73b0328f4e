# Three images, of a target each, on one layer with the Python packages:   docker build --target core .
# Either builder does. Built twice of the same files on the same base the layers are the same: what goes into one is
# staged below a folder of its own, from which COPY takes times as well.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
ARG SOURCE_DATE_EPOCH=1704067200
COPY requirements.txt /tmp/
# The environment has no pip of its own. Bytecode that is checked against nothing carries no time stamp.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python --disable-pip-version-check install \
      --no-cache-dir --no-compile --only-binary :all: --require-hashes --requirement /tmp/requirements.txt \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib \
 && mkdir -p /staged/runtime/opt /staged/runtime/app \
 && mv /opt/venv /staged/runtime/opt/ \
 && find /staged -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +
COPY core /staged/core/app/core
COPY gateway /staged/gateway/app/gateway
COPY gpu_agent /staged/gpu_agent/app/gpu_agent
RUN cd /staged \
 && for part in core gateway gpu_agent; do \
      python -m compileall -q --invalidation-mode unchecked-hash -s "/staged/$part" "$part" || exit; \
    done \
 && chmod -R u=rwX,go=rX core gateway gpu_agent \
 && find core gateway gpu_agent -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM ${PYTHON} AS runtime
COPY --from=build /staged/runtime /
# Megabytes that come and go cost twice the CPU time with the allocator's own thresholds.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    MALLOC_TRIM_THRESHOLD_=67108864 \
    MALLOC_MMAP_THRESHOLD_=67108864
WORKDIR /app
ARG VERSION=2.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="InferenceServer" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}

FROM runtime AS core
LABEL org.opencontainers.image.title="InferenceServer core" \
      org.opencontainers.image.description="Keeps models, tasks and zips in Redis, and rings for agents through RabbitMQ"
COPY --from=build /staged/core /
USER 10001:10001
EXPOSE 7000
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s \
  CMD ["python", "-I", "/app/core/probe.py", "http://127.0.0.1:7000/healthz"]
CMD ["python", "-m", "core"]

FROM runtime AS gateway
LABEL org.opencontainers.image.title="InferenceServer gateway" \
      org.opencontainers.image.description="Serves the public API over HTTPS"
COPY --from=build /staged/core /
COPY --from=build /staged/gateway /
USER 10001:10001
EXPOSE 8443
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s \
  CMD python -I /app/core/probe.py https://127.0.0.1:8443/healthz ${TLS_CLIENT_CA_FILE:+--handshake}
CMD ["python", "-m", "gateway"]

# Root, because whoever reaches the Docker socket is root anyway, and the models' files have owners of their own.
FROM runtime AS gpu_agent
LABEL org.opencontainers.image.title="InferenceServer GPU agent" \
      org.opencontainers.image.description="Runs models' containers on the GPUs of its host"
COPY --from=build /staged/core /
COPY --from=build /staged/gpu_agent /
HEALTHCHECK --interval=10s --timeout=20s --start-period=60s \
  CMD ["python", "-m", "gpu_agent.health"]
CMD ["python", "-m", "gpu_agent"]
