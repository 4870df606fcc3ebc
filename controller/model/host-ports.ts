/** The ports of flock's own programs on a host, all in one place, for two of them must never meet. */

/** Plugins among each other, unless the node was given another port. */
export const peerPort = 4270;
/** On loopback: health and metrics. */
export const webPorts = { plugin: 4271, proxy: 4272, controller: 4273 } as const;
/** Of other doors between hosts, beyond the node's peer port. */
export const portOffsets = {
  /** Controllers among each other. */
  controller: 4,
  /** Large streams between plugins, and those without encryption. */
  streams: 5,
} as const;
