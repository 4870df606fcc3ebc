import type { Socket } from 'node:net';
import { FlockError } from '../../controller/model/errors.ts';

/** What Node keeps of a connected TCP or unix socket. Not public, but as old as libuv's streams. */
type Handle = { readonly fd: number; reading: boolean; readStart(): number; readStop(): number };

/**
 * Gives `work` the descriptor of a connected socket, for Storage.send or receive. Meanwhile nothing in this process reads from it:
 * pausing a socket is not enough, because Node goes on reading until its buffer is full, and these bytes would be missing in the
 * stream. Afterwards it is as it was, flowing or not.
 *
 * What the caller has to see to:
 * - Before: nothing of the stream may have been read by Node already (`storage-failed` if the buffer is not empty). So the sender
 *   starts only when the receiver has said that it is ready: a byte sent before `lendSocket` of the receiver may be swallowed. Nothing
 *   may be waiting to be written either (`writableLength` is 0).
 * - Meanwhile: nothing is written to the socket. It must not be TLS.
 * - After: libuv makes the descriptor blocking for the command, and the flag belongs to the socket, not to the descriptor: it stays
 *   blocking. Short messages (an acknowledgement) and closing are fine; anything long would block this process.
 */
export async function lendSocket<T>(socket: Socket, work: (descriptor: number) => Promise<T>): Promise<T> {
  const handle = handleOf(socket);
  const isFlowing = socket.readableFlowing === true;
  const wasReading = handle.reading;
  if (socket.readableLength > 0 || socket.writableLength > 0)
    throw new FlockError(
      'storage-failed',
      'the socket still has bytes in its buffers: it can not be lent to a command',
    );
  socket.pause();
  handle.readStop();
  handle.reading = false;
  try {
    return await work(handle.fd);
  } finally {
    // A socket that was closed meanwhile has no handle any more.
    if (!socket.destroyed && (wasReading || isFlowing)) {
      handle.reading = true;
      handle.readStart();
    }
    if (isFlowing) socket.resume();
  }
}

function handleOf(socket: Socket): Handle {
  const handle: unknown = '_handle' in socket ? socket._handle : null;
  if (isHandle(handle) && !socket.connecting) return handle;
  throw new FlockError('storage-failed', 'only a connected TCP or unix socket can be lent to a command');
}

function isHandle(handle: unknown): handle is Handle {
  return (
    typeof handle === 'object' &&
    handle !== null &&
    'fd' in handle &&
    typeof handle.fd === 'number' &&
    handle.fd >= 0 &&
    'readStop' in handle &&
    'readStart' in handle
  );
}
