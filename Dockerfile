# The operator alone: one static binary, no shell, no package manager, not root. BuildKit is needed; which frontend reads
# this file is not asked of a registry, so that nothing but the base image comes from one.
#   docker buildx build --platform linux/amd64,linux/arm64 -t webhook-operator .
# The same sources give the same binary: versions are pinned, paths are mapped away, no time is built in.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-bookworm AS build
ARG TARGETARCH
RUN apt-get update \
 && apt-get install --yes --no-install-recommends musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The image's own compiler is the pinned one; rust-toolchain.toml would have lints and a formatter fetched as well.
ENV RUSTUP_TOOLCHAIN=1.95.0 \
    CARGO_PROFILE_RELEASE_LTO=fat \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
    CC_x86_64_unknown_linux_musl=musl-gcc \
    CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc \
    RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-musl ;; \
      arm64) target=aarch64-unknown-linux-musl ;; \
      *) echo "no target for architecture $TARGETARCH" >&2; exit 1 ;; \
    esac \
 && rustup target add "$target" \
 && cargo build --locked --release --package webhook-operator --target "$target" \
 && install -D "target/$target/release/webhook-operator" /out/webhook-operator

FROM scratch
LABEL org.opencontainers.image.title=webhook-operator \
      org.opencontainers.image.source=https://github.com/webhook-operator/webhook-operator \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/webhook-operator /webhook-operator
# The second is there after `cargo xtask licenses`, as in a release; who builds for himself may do without.
COPY LICENSE THIRD-PARTY-LICENSE[S] /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/webhook-operator"]
CMD ["run"]
