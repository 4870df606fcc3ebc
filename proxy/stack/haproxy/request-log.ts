import { createSocket } from 'node:dgram';
import type { Observe } from '../../gate/observe.ts';
import { matchRoute } from '../../model/match.ts';
import type { Table } from '../../model/table.ts';

/**
 * What HAProxy tells of the requests that it has served: a datagram each, to a port of the host's loopback address. Lost ones are
 * lost: nobody waits for a reader, and other programs of the host can make some up: they are good for figures only. Of how many requests one is told, is part of HAProxy's configuration.
 */
export type RequestLog = { readonly port: number; readonly every: number };

/** Without the access log: enough for histograms, and next to nothing for HAProxy. */
export const sampledEvery = 16;

/** As HAProxy's `log-format` has it; the path comes last, because it may have anything in it but a space. */
export const requestLogFormat = '%f %ST %Ta %ci %HM %[var(txn.host)] %[var(txn.path)]';

export type LoggedRequest = {
  readonly listener: string;
  readonly status: number;
  readonly durationMs: number;
  readonly client: string;
  readonly method: string;
  readonly host: string;
  readonly path: string;
};

/** Null: something else, or a tunnel, which is no request any more. Pure. */
export function parseRequestLog(text: string): LoggedRequest | null {
  const match = /^(http|https)-(\d{1,5}) ([1-5]\d{2}) (\d{1,10}) (\S+) ([A-Z]+) (\S+) (\S+)\s*$/.exec(text);
  if (match === null) return null;
  const [, protocol, port, status = '', ms = '', client = '', method = '', host = '', path = ''] = match;
  if (status === '101') return null;
  const listener = `${protocol === 'http' ? 'http' : 'tls'} *:${port}`;
  return { listener, status: Number(status), durationMs: Number(ms), client, method, host, path };
}

/** Observes what comes until it is closed. A port that is taken is told once, and then there are no figures of HAProxy's requests. */
export function receiveRequestLog(parts: {
  readonly port: number;
  readonly table: () => Table;
  /** How many requests one that is told stands for. */
  readonly every: () => number;
  readonly observe: Observe;
  readonly onProblem: (text: string) => void;
}): { close(): void } {
  const socket = createSocket('udp4');
  socket.on('error', (error) => {
    parts.onProblem(`HAProxy's requests are not counted: ${error.message}`);
    socket.close();
  });
  socket.on('message', (message) => {
    const logged = parseRequestLog(message.toString('latin1'));
    if (logged === null) return;
    const { listener, durationMs, client, method, host, path, status } = logged;
    const target = matchRoute(parts.table(), listener, host, path);
    const request = { method, host, path, status };
    const { route = null, service = null } = target ?? {};
    parts.observe({ route, service, client, durationMs, weight: parts.every(), request });
  });
  socket.bind(parts.port, '127.0.0.1');
  socket.unref();
  let isClosed = false;
  socket.once('close', () => {
    isClosed = true;
  });
  return {
    close() {
      if (!isClosed) socket.close();
    },
  };
}
