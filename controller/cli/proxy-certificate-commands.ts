import { readFile, stat } from 'node:fs/promises';
import type { Command } from 'commander';
import { z } from 'zod';
import { messageOf } from '../model/errors.ts';
import { type CertificateView, certificateView } from '../model/proxy-api.ts';
import { anything, CliError, path } from './client.ts';
import type { Session } from './main.ts';
import { type Column, formatTable } from './output.ts';

const fileBytesMax = 96 * 1024;
const namesShownMax = 3;

const columns: readonly Column<CertificateView>[] = [
  { title: 'NAME', value: (certificate) => certificate.name },
  { title: 'COVERS', value: ({ covers }) => shortList(covers) },
  { title: 'EXPIRES', value: ({ validUntilMs }) => new Date(validUntilMs).toISOString().slice(0, 10) },
  { title: 'ROUTES', value: ({ routes }) => String(routes.length), right: true },
  { title: 'NOTES', value: ({ notes }) => notes.join('; ') },
];

export function addCertificateCommands(program: Command, session: () => Session): void {
  const certificate = program.command('certificate').description('certificates of https routes, for all nodes');

  certificate
    .command('add')
    .description('put a certificate and its key into the store, or replace them')
    .argument('<name>', "the host's name, without *., or what the route calls it")
    .requiredOption('--cert <file>', 'the chain in PEM form, the certificate of the key first')
    .option('--key <file>', 'its key in PEM form (default: in the same file)')
    .action(async (name: string, files: { readonly cert: string; readonly key?: string }) => {
      const { proxy, print, note } = session();
      const body = {
        name,
        certificate: await readPem(files.cert),
        key: files.key === undefined ? null : await readPem(files.key),
      };
      const added = await proxy.send('POST', '/v1/certificates', body, certificateView);
      print(added, () => formatTable([added], columns.slice(0, -1)));
      for (const text of added.notes) note(text);
    });

  certificate
    .command('ls')
    .description('list the certificates')
    .action(async () => {
      const { proxy, print } = session();
      const certificates = await proxy.get('/v1/certificates', z.array(certificateView));
      print(certificates, () => formatTable(certificates, columns));
    });

  certificate
    .command('rm')
    .description('remove certificates')
    .argument('<name...>')
    .option('--force', 'also those that routes use')
    .action(async (names: readonly string[], { force }: { readonly force?: true }) => {
      const { proxy, print } = session();
      const query = force === true ? '?force=true' : '';
      for (const name of names) {
        await proxy.send('DELETE', `${path`/v1/certificates/${name}`}${query}`, undefined, anything);
        print({ removed: name }, () => `${name}\n`);
      }
    });
}

async function readPem(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > fileBytesMax)
      throw new CliError(`${file} has more than ${fileBytesMax / 1024} KiB: is it a certificate or key in PEM form?`);
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError(`can't read ${file}: ${messageOf(error)}`);
  }
}

function shortList(words: readonly string[]): string {
  const rest = words.length > namesShownMax ? ` and ${words.length - namesShownMax} more` : '';
  return words.length === 0 ? '-' : `${words.slice(0, namesShownMax).join(',')}${rest}`;
}
