/** What both ends of a connection between plugins agree on, beside the proof of who they are (controller/cluster/tls.ts). */

/** The protocol of bulk streams, told by ALPN; everything else on the port is HTTP. */
export const dataProtocol = 'flock-data';
export const httpProtocol = 'http/1.1';

/**
 * What to write at once into a bulk stream. Reads come in TLS records of 16 KiB whatever one does; measured on one core a side: 1.2 GB/s
 * with writes of 16 KiB, 1.5 GB/s with 256 KiB and the streams' own buffer limits, no more with larger ones.
 */
export const dataChunkBytes = 256 * 1024;
