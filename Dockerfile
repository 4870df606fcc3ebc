# The same images as `make up` makes, on an official base, for people with a registry.
#   the plugin:  docker build --output build/plugin/rootfs . && cp config.json build/plugin && docker plugin create flock build/plugin
#   the proxy:   docker build --target proxy -t REGISTRY/flock-proxy:VERSION .
FROM node:24-bookworm AS build
WORKDIR /src
COPY . .
RUN make rootfs

FROM scratch AS proxy
COPY --from=build /src/build/proxy-rootfs/ /
ENV PATH=/usr/sbin:/usr/bin LC_ALL=C
ENTRYPOINT ["/usr/bin/node", "--disable-warning=DEP0060", "--max-semi-space-size=2"]
CMD ["/flock/proxy.js"]

FROM scratch
COPY --from=build /src/build/rootfs/ /
ENTRYPOINT ["/usr/bin/node", "--max-semi-space-size=2", "--max-old-space-size=256", "/flock/plugin.js"]
