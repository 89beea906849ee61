# esl-server in a small image: docker build -t esl .
FROM rust:1.95-slim-trixie AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package esl-server \
    && cp target/release/esl-server /esl-server

FROM debian:trixie-slim
# curl is for the health check.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/esl --create-home esl
COPY --from=build /esl-server /usr/local/bin/esl-server
USER esl
# The database file and large payloads, unless the variables say otherwise.
WORKDIR /var/lib/esl
VOLUME /var/lib/esl
ENV ESL_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8080/health"]
# A stop in order takes ESL_SHUTDOWN_GRACE at most; see docs/operations.md.
STOPSIGNAL SIGTERM
ENTRYPOINT ["esl-server"]
