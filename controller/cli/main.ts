import { Command, CommanderError, Option } from 'commander';
import { z } from 'zod';
import { FlockError, messageOf } from '../model/errors.ts';
import { CliError, createClient } from './client.ts';
import { addClusterCommands } from './cluster-commands.ts';
import { addNodeCommands } from './node-commands.ts';
import { type Format, formatJson } from './output.ts';
import { addPoolCommands } from './pool-commands.ts';
import { addReplicationCommands } from './replication-commands.ts';
import { addSnapshotCommands } from './snapshot-commands.ts';
import { addTrashCommands } from './trash-commands.ts';
import { addVolumeCommands } from './volume-commands.ts';

/** What every command gets: the plugin, and a way to print its answer. */
export type Session = {
  readonly client: ReturnType<typeof createClient>;
  /** Prints JSON, or what `table` makes of it. */
  print(value: unknown, table: () => string): void;
};

const defaultSocket = '/run/flock/flock.sock';

async function main(argv: readonly string[]): Promise<number> {
  const program = new Command('flockctl')
    .description(
      'Looks at flock volumes and works on them: snapshots, clones, rollbacks, the trash; makes and looks after a cluster.',
    )
    .addOption(new Option('-o, --output <format>', 'how to print results').choices(['table', 'json']).default('table'))
    .addOption(new Option('--socket <path>', "the plugin's socket").env('FLOCK_SOCKET').default(defaultSocket))
    .showHelpAfterError('(add --help for the usage)')
    .exitOverride();
  const session = (): Session => {
    const { output, socket } = program.opts<{ output: Format; socket: string }>();
    return {
      client: createClient(socket),
      print: (value, table) => void process.stdout.write(output === 'json' ? formatJson(value) : table()),
    };
  };
  addVolumeCommands(program, session);
  addSnapshotCommands(program, session);
  addTrashCommands(program, session);
  addPoolCommands(program, session);
  addClusterCommands(program, session);
  addNodeCommands(program, session);
  addReplicationCommands(program, session);
  try {
    await program.parseAsync(argv);
    return 0;
  } catch (error) {
    // commander has printed its own message already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const text =
      error instanceof z.ZodError
        ? `the plugin's answer is not understood, are flockctl and the plugin of one version? ${error.message}`
        : messageOf(error);
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

process.exitCode = await main(process.argv);
