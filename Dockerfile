# The root file system of all flock images, for people with a registry; on a bare machine `make up` needs no Docker image.
#   the plugin:  docker build --output build/plugin/rootfs . && cp config.json build/plugin && docker plugin create flock build/plugin
FROM node:24-bookworm AS build
WORKDIR /src
COPY . .
RUN make rootfs

FROM scratch
COPY --from=build /src/build/rootfs/ /
ENTRYPOINT ["/usr/bin/node", "--max-semi-space-size=2", "--max-old-space-size=256", "/flock/plugin.js"]
