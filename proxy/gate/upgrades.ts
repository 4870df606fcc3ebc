import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Target } from '../model/table.ts';
import { type Answer, answerSocket, answers, answerTo } from './answer.ts';
import { dial } from './dial.ts';
import type { Forwarder } from './forward.ts';
import { type ClientFacts, requestHeaders, responseHeaders } from './headers.ts';
import type { GateLimits } from './limits.ts';
import type { Pass, Services } from './services.ts';

/** WebSockets: held before they are opened, counted as tunnels after. */
export type Upgrades = {
  /** `socket` must have a listener for errors already. */
  take(req: IncomingMessage, socket: Socket, head: Buffer, routed: Routed): void;
};

export type Routed = { readonly target: Target; readonly client: ClientFacts; readonly path: string };

export function createUpgrades(options: {
  readonly services: Services;
  readonly limits: GateLimits;
  readonly forwarder: Forwarder;
}): Upgrades {
  const { services, limits, forwarder } = options;

  async function open(req: IncomingMessage, socket: Socket, head: Buffer, routed: Routed, pass: Pass): Promise<void> {
    const upstream = await dial(pass, routed.target.port, limits, () => !socket.destroyed);
    if (upstream === null || socket.destroyed) {
      upstream?.destroy();
      if (!socket.destroyed) answerSocket(socket, answers.noBackend);
      pass.done();
      return;
    }
    upstream.on('error', () => {});
    let isOpen = false;
    upstream.once('close', () => {
      // Nothing of it can come any more; http-proxy leaves the client's side open after an error.
      if (isOpen) endSoon(socket, limits);
      pass.done();
    });
    socket.once('close', () => upstream.destroy());
    socket.removeListener('readable', nothing);
    req.headers = { ...requestHeaders(req.headers, routed.client), connection: 'Upgrade', upgrade: 'websocket' };
    forwarder.upgrade(req, socket, head, {
      upstream,
      path: routed.path,
      onOpen() {
        isOpen = true;
        pass.becomeTunnel({
          end() {
            socket.end();
            upstream.end();
          },
          cut() {
            socket.destroy();
            upstream.destroy();
          },
        });
      },
      onRefused(refused) {
        if (isOpen || socket.destroyed) return;
        if (isAnswer(refused)) answerSocket(socket, refused);
        else relayRefusal(refused, socket);
      },
    });
  }

  return {
    take(req, socket, head, routed) {
      let held: { leave(): void } | null = null;
      const leave = () => {
        held?.leave();
        socket.destroy();
      };
      socket.once('end', leave);
      socket.once('close', leave);
      // Notices a client that leaves, and reads no further than the stream's limit.
      socket.on('readable', nothing);
      held = services.enter({
        service: routed.target.service,
        bytes: upgradeBytes + head.length,
        go(pass) {
          socket.removeListener('end', leave);
          socket.removeListener('close', leave);
          open(req, socket, head, routed, pass).catch(() => {
            socket.destroy();
            pass.done();
          });
        },
        refuse: (refusal) => answerSocket(socket, answerTo(refusal)),
      });
    },
  };
}

/** A service's no, as one message on a connection that ends with it. */
function relayRefusal(response: IncomingMessage, socket: Socket): void {
  const lines = [`HTTP/1.1 ${response.statusCode ?? 502} ${response.statusMessage ?? ''}`, 'connection: close'];
  const headers = responseHeaders(response.rawHeaders, false);
  for (let index = 0; index < headers.length; index += 2) lines.push(`${headers[index]}: ${headers[index + 1]}`);
  socket.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
  response.on('error', () => socket.destroy());
  response.pipe(socket);
}

function endSoon(socket: Socket, limits: GateLimits): void {
  if (socket.destroyed) return;
  socket.end();
  socket.setTimeout(limits.halfOpenMsMax, () => socket.destroy());
  if (socket.writableFinished) socket.destroy();
  else socket.once('finish', () => socket.destroy());
}

function isAnswer(refused: IncomingMessage | Answer): refused is Answer {
  return 'retryAfterS' in refused;
}

const upgradeBytes = 4096;
const nothing = () => {};
