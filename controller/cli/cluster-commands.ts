import { type Command, Option } from 'commander';
import { memberView, type StatusView, statusView, tokenView } from '../model/api.ts';
import { formatPeerAddress, storeAddressDefault } from '../model/identity.ts';
import { formatDuration, parseDuration } from '../model/quantity.ts';
import { CliError } from './client.ts';
import type { Session } from './main.ts';
import { formatFacts } from './output.ts';

type MemberOptions = {
  readonly name?: string;
  readonly address?: string;
  readonly store?: string;
  readonly storeToken?: string;
  readonly label: readonly string[];
};

export function addClusterCommands(program: Command, session: () => Session): void {
  withMemberOptions(program.command('init'))
    .description('make a cluster with this host as its first node')
    .addOption(
      new Option('--profile <profile>', 'fast: shorter limits, for hosts close to each other')
        .choices(['default', 'fast'])
        .default('default'),
    )
    .action(async ({ profile, ...options }: MemberOptions & { readonly profile: string }) => {
      const { client, print } = session();
      const made = await client.send('POST', '/v1/cluster', { ...memberBody(options), profile }, memberView);
      print(
        made,
        () =>
          `Cluster ${made.clusterId} is made; this host is ${made.name} at ${formatPeerAddress(made)}.\n"flockctl token create" prints how other hosts join.\n`,
      );
    });

  withMemberOptions(program.command('join'))
    .description('make this host a node of a cluster')
    .argument('<address>', 'HOST[:PORT] of any node of the cluster')
    .argument('<token>', 'as "flockctl token create" printed it')
    .action(async (address: string, token: string, options: MemberOptions) => {
      const { client, print } = session();
      const body = { ...memberBody(options), member: address, token };
      const joined = await client.send('POST', '/v1/cluster/join', body, memberView);
      print(
        joined,
        () => `This host is now ${joined.name} of cluster ${joined.clusterId}, at ${formatPeerAddress(joined)}.\n`,
      );
    });

  const token = program.command('token').description('what other hosts join with');

  token
    .command('create')
    .description('make a join token; it is shown this once')
    .option('--uses <count>', 'how many hosts may join with it', '1')
    .option('--ttl <duration>', 'how long it is valid', '1h')
    .action(async ({ uses, ttl }: { readonly uses: string; readonly ttl: string }) => {
      const { client, print } = session();
      if (!/^\d{1,6}$/.test(uses)) throw new CliError(`--uses ${uses}: give a number of hosts`);
      const body = { uses: Number(uses), ttlMs: parseDuration(ttl) };
      const made = await client.send('POST', '/v1/tokens', body, tokenView);
      print(
        made,
        () =>
          `On the host that is to join, within ${formatDuration(body.ttlMs)}:\n\n  flockctl join ${made.address} ${made.token}\n`,
      );
    });

  program
    .command('status')
    .description('how the cluster is: nodes, volumes, the store')
    .action(async () => {
      const { client, print } = session();
      const status = await client.get('/v1/status', statusView);
      print(status, () => formatFacts(facts(status)));
    });
}

function withMemberOptions(command: Command): Command {
  return command
    .option('--name <name>', "the node's name (default: the host's)")
    .option('--address <host[:port]>', 'where the other nodes reach it (default: the address of the default route)')
    .option('--store <url>', `this host's way to Consul (default: ${storeAddressDefault})`)
    .addOption(new Option('--store-token <token>', "Consul's ACL token").env('FLOCK_STORE_TOKEN'))
    .option(
      '--label <key=value>',
      'such as dc=north or rack=r7; may be repeated',
      (word: string, words: readonly string[]) => [...words, word],
      [] as readonly string[],
    );
}

function memberBody({ name, address, store, storeToken, label }: MemberOptions) {
  return {
    name: name ?? null,
    address: address ?? null,
    store: store ?? null,
    storeToken: storeToken ?? null,
    labels: label,
  };
}

/** Pure. */
export function facts({ cluster, node, store, nodes, volumes }: StatusView): Record<string, string> {
  if (cluster === null || node === null || store === null)
    return { Cluster: 'none: "flockctl init" makes one, "flockctl join" makes this host part of one' };
  const profile = cluster.profile === null ? '' : ` (profile ${cluster.profile})`;
  const unknown = 'unknown while the store does not answer';
  return {
    Cluster: `${cluster.id}${profile}`,
    'This node': `${node.name} at ${formatPeerAddress(node)}`,
    Store: `${store.kind} at ${store.address}, ${store.reachable ? 'answers' : `DOES NOT ANSWER: ${store.message}`}`,
    Nodes: nodes === null ? unknown : `${nodes.up} of ${nodes.total} up${list(', DOWN: ', nodes.down)}`,
    Volumes:
      volumes === null
        ? unknown
        : `${volumes.total}${list(', with too few copies: ', volumes.underReplicated)}${list(', OWNER DOWN: ', volumes.ownerDead)}`,
  };
}

const namesMax = 8;

function list(title: string, names: readonly string[]): string {
  if (names.length === 0) return '';
  const rest = names.length > namesMax ? ` and ${names.length - namesMax} more` : '';
  return `${title}${names.slice(0, namesMax).join(', ')}${rest}`;
}
