/**
 * `stale-owner.ts NODE ADDRESS DOCUMENT`, run on a host of a cluster: speaks to another node as this one's plugin would if it still
 * took itself for the owner that the document (a volume's, JSON) says. Prints what it is told, one line for each try: a stream, the
 * rewinding of the copy, the thinning of its snapshots.
 */
import { once } from 'node:events';
import { loadIdentity } from '../../../controller/cluster/files.ts';
import { decodeVolume } from '../../../controller/model/cluster.ts';
import { hasCode } from '../../../controller/model/errors.ts';
import { parseNodeName } from '../../../controller/model/names.ts';
import { snapshotName } from '../../../controller/model/replication.ts';
import { createPeerClient } from '../../../plugin/peer/client.ts';
import { peerPort } from './fault-proxy.ts';

const [name = '', address = '', document = ''] = process.argv.slice(2);
const identity = await loadIdentity('/var/lib/flock/cluster');
if (identity === null) throw new Error('this host is in no cluster');
const node = parseNodeName(name);
const { id, epoch } = decodeVolume(document);
const client = createPeerClient({ identity, resolve: () => ({ address, port: peerPort }) });
const answerMsMax = 10_000;

const socket = await client.connectData(node, AbortSignal.timeout(answerMsMax));
const to = snapshotName(epoch, Date.now());
socket.write(`${JSON.stringify({ doc: document, to, toIdentity: 'none', from: null })}\n`);
const [said] = await once(socket, 'data', { signal: AbortSignal.timeout(answerMsMax) });
const { error } = JSON.parse(String(said).split('\n')[0] ?? '') as { readonly error?: { readonly code: string } };
console.log(error?.code ?? 'taken');
socket.destroy();

for (const [call, more] of [
  ['rewind-copy', { common: null }],
  ['prune-copy', { snapshots: [to] }],
] as const) {
  const answer = await client.call(node, 'POST', `/v1/peer/${call}`, { id, epoch, ...more }).then(
    () => 'taken',
    (reason: unknown) => (hasCode(reason, 'epoch-stale') ? reason.code : String(reason)),
  );
  console.log(answer);
}
client.close();
