import { CommandError, type Commands } from '../../../plugin/exec.ts';
import { hex, markMask } from './marks.ts';
import { isMissing } from './nft.ts';

/**
 * Docker's chain of forwarded packets drops what no published port leads to. Before it come the rules of a chain for users, which
 * Docker leaves alone but makes anew after a flush: there our rule accepts what our table has translated.
 */
const chain = 'DOCKER-USER';
const rule: readonly string[] = [
  ...['-m', 'conntrack', '--ctstate', 'DNAT'],
  ...['-m', 'connmark', '!', '--mark', `0x0/${hex(markMask)}`],
  ...['-m', 'comment', '--comment', 'flock'],
  ...['-j', 'ACCEPT'],
];

/** Two kinds of iptables with tables of their own; Docker uses the one that the host has chosen. */
const kinds = ['nft', 'legacy'] as const;
const iptablesMsMax = 10_000;

/** Puts the rule where Docker's chain is and the rule is not. Throws CommandError. */
export async function acceptOurs(commands: Commands): Promise<void> {
  for (const kind of kinds) {
    if (dockerChain(await save(commands, kind)) === 'without our rule')
      await commands.run(`iptables-${kind}`, ['-w', '5', '-I', chain, ...rule], { timeoutMs: iptablesMsMax });
  }
}

/** Takes the rule away. Throws CommandError. */
export async function rejectOurs(commands: Commands): Promise<void> {
  for (const kind of kinds) {
    if (dockerChain(await save(commands, kind)) === 'with our rule')
      await commands.run(`iptables-${kind}`, ['-w', '5', '-D', chain, ...rule], { timeoutMs: iptablesMsMax });
  }
}

/** Of what iptables-save says. Pure. */
export function dockerChain(saved: string): 'missing' | 'without our rule' | 'with our rule' {
  let table = '';
  let isThere = false;
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1).trim();
    if (table !== 'filter') continue;
    if (line.startsWith(`:${chain} `)) isThere = true;
    if (line.startsWith(`-A ${chain} `) && line.includes('connmark') && line.includes('--comment flock'))
      return 'with our rule';
  }
  return isThere ? 'without our rule' : 'missing';
}

/** It reads what is there. Asking the legacy kind in any other way would make its tables. */
async function save(commands: Commands, kind: string): Promise<string> {
  try {
    return await commands.run(`iptables-${kind}-save`, [], { timeoutMs: iptablesMsMax });
  } catch (error) {
    // Without it Docker can't have used it, and a kernel without this kind says so in words.
    if (isMissing(error) || (error instanceof CommandError && error.stderr.includes('does not exist'))) return '';
    throw error;
  }
}
