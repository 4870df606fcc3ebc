import { Command, CommanderError, Option } from 'commander';
import { FlockError, messageOf } from '../model/errors.ts';
import { CliError, type Client, createClient } from './client.ts';
import { addClusterCommands } from './cluster-commands.ts';
import { addEventCommands } from './event-commands.ts';
import { addMoveCommands } from './move-commands.ts';
import { addNodeCommands } from './node-commands.ts';
import { type Format, formatJson } from './output.ts';
import { addPoolCommands } from './pool-commands.ts';
import { addCertificateCommands } from './proxy-certificate-commands.ts';
import { addLinkCommands } from './proxy-link-commands.ts';
import { addRouteCommands } from './proxy-route-commands.ts';
import { addServiceCommands } from './proxy-service-commands.ts';
import { addProxyStatusCommands } from './proxy-status-commands.ts';
import { addReplicationCommands } from './replication-commands.ts';
import { addSnapshotCommands } from './snapshot-commands.ts';
import { addTrashCommands } from './trash-commands.ts';
import { addVolumeCommands } from './volume-commands.ts';

/** What every command gets: the programs that it can ask, and a way to print the answer. */
export type Session = {
  /** The plugin. */
  readonly client: Client;
  readonly proxy: Client;
  readonly controller: Client;
  /** Prints JSON, or what `table` makes of it. */
  print(value: unknown, table: () => string): void;
  /** Says something beside the answer, to people only. */
  note(text: string): void;
  /** A part of what people see as the answer, before its end; programs get the end only. */
  say(text: string): void;
};

const defaultSockets = {
  plugin: '/run/flock/flock.sock',
  proxy: '/run/flock/proxy-api.sock',
  controller: '/run/flock/controller-api.sock',
} as const;

async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('flockctl')
    .description(
      'Looks at flock volumes and works on them: snapshots, clones, rollbacks, the trash; makes and looks after a cluster; leads clients to services; moves those to other nodes.',
    )
    .addOption(new Option('-o, --output <format>', 'how to print results').choices(['table', 'json']).default('table'))
    .addOption(new Option('--socket <path>', "the plugin's socket").env('FLOCK_SOCKET').default(defaultSockets.plugin))
    .addOption(
      new Option('--proxy-socket <path>', "the proxy's socket").env('FLOCK_PROXY_SOCKET').default(defaultSockets.proxy),
    )
    .addOption(
      new Option('--controller-socket <path>', "the controller's socket")
        .env('FLOCK_CONTROLLER_SOCKET')
        .default(defaultSockets.controller),
    )
    .showHelpAfterError('(add --help for the usage)')
    .exitOverride();
  const session = (): Session => {
    const { output, socket, proxySocket, controllerSocket } = program.opts<{
      output: Format;
      socket: string;
      proxySocket: string;
      controllerSocket: string;
    }>();
    return {
      client: createClient({ socketPath: socket, name: 'plugin' }),
      proxy: createClient({ socketPath: proxySocket, name: 'proxy' }),
      controller: createClient({ socketPath: controllerSocket, name: 'controller' }),
      print: (value, table) => void process.stdout.write(output === 'json' ? formatJson(value) : table()),
      note: (text) => {
        if (output !== 'json') process.stderr.write(`flockctl: ${text}\n`);
      },
      say: (text) => {
        if (output !== 'json') process.stdout.write(text);
      },
    };
  };
  addVolumeCommands(program, session);
  addSnapshotCommands(program, session);
  addTrashCommands(program, session);
  addPoolCommands(program, session);
  addClusterCommands(program, session);
  addNodeCommands(program, session);
  addReplicationCommands(program, session);
  addRouteCommands(program, session);
  addLinkCommands(program, session);
  addServiceCommands(program, session);
  addCertificateCommands(program, session);
  addProxyStatusCommands(program, session);
  addMoveCommands(program, session);
  addEventCommands(program, session);
  try {
    await program.parseAsync(argv);
    return 0;
  } catch (error) {
    // commander has printed its own message already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const text = messageOf(error);
    const asJson = program.opts<{ output: Format }>().output === 'json';
    process.stderr.write(
      asJson
        ? formatJson({
            error: {
              code: error instanceof CliError || error instanceof FlockError ? error.code : null,
              message: text,
            },
          })
        : `flockctl: ${text}\n`,
    );
    return 1;
  }
}

/** As a shell tells of a program that was ended by SIGPIPE, which Node ignores. */
const pipeClosedStatus = 141;

// Whoever reads it has seen enough, as `head` and `grep -m1` have: nobody is left to be told anything.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(pipeClosedStatus);
});
// What is to be done is done all the same.
process.stderr.on('error', () => undefined);

process.exitCode = await main(process.argv);
