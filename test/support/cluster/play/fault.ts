/** `fault.ts COMMAND [HOST...]`: breaks or mends the cluster of `make cluster`. */
import { createConnection } from 'node:net';
import { text } from 'node:stream/consumers';
import { runProgram } from '../../../../packaging/steps.ts';
import { faultUsage } from './control.ts';
import { place } from './place.ts';

await runProgram(async () => {
  const words = process.argv.slice(2);
  if (words.length === 0) return console.log(faultUsage(place.fault));
  const socket = createConnection({ path: place.control, allowHalfOpen: true });
  socket.end(JSON.stringify(words));
  const answer = await text(socket).catch((cause: unknown) => {
    throw new Error('no cluster answers: "make cluster" starts one', { cause });
  });
  if (answer.startsWith('error: ')) throw new Error(answer.slice('error: '.length).trim());
  process.stdout.write(answer);
});
