import { image } from '../../../packaging/proof.ts';
import type { ClusterHost } from './cluster-host.ts';

/**
 * A container that writes numbered records to a volume, each made durable before it is acknowledged on stdout, and the check of what
 * is found afterwards, on whichever host. A record is one line, `NUMBER NODE SECONDS`: the host that wrote it, and its boot clock,
 * which all hosts on one machine share.
 */
export type Entry = { readonly number: number; readonly node: string; readonly bootSeconds: number };

/** A record that its writer has called durable, and by when: after that, every snapshot of the volume has it. */
export type Acknowledgement = Entry & { readonly durableSeconds: number };

export type Verdict<Heard extends Entry = Entry> = {
  /** The number of the last whole record; 0: none. */
  readonly last: number;
  /** Gaps, duplicates and unreadable lines, in words. Must be empty whatever happened. */
  readonly faults: readonly string[];
  /** What was acknowledged and is missing, or is another one under its number. Empty unless a loss was allowed. */
  readonly lost: readonly Heard[];
};

/** Of one writer and its volume. */
export type Writer = { readonly container: string; readonly volume: string };

/**
 * The container's own address tells the host (containerNetworkOf), and goes on doing so when the container is made anew elsewhere.
 * zfs-fuse makes durable only what was written by the handle that is synced, so one process does both. What a crash left of a last line is cut off first: it was never acknowledged, and the next record would be glued to it.
 */
const script = (pauseMs: number) => `
file=/data/records
node=$(ip -4 addr show eth0 2>/dev/null | sed -n 's/.*inet 172\\.2\\([1-9]\\)\\..*/n\\1/p')
if [ -s $file ] && [ -n "$(tail -c 1 $file)" ]; then
  truncate -s $(($(stat -c %s $file) - $(tail -n 1 $file | wc -c))) $file || exit 1
fi
i=$(tail -n 1 $file 2>/dev/null | cut -d ' ' -f 1)
i=\${i:-0}
while :; do
  i=$((i+1))
  read seconds idle < /proc/uptime
  record="$i \${node:-unknown} $seconds"
  echo "$record" | dd of=$file oflag=append conv=notrunc,fsync status=none || { echo "failed $record"; exit 1; }
  read durable idle < /proc/uptime
  echo "acknowledged $record $durable"
  usleep ${pauseMs * 1000}
done`;

/** Starts a writer on a host. It goes on with the number after the last one that the volume has. */
export async function startWriter(
  host: ClusterHost,
  { container, volume }: Writer,
  options: readonly string[] = [],
  pauseMs = 50,
): Promise<void> {
  const where = ['--name', container, '--volume-driver=flock', '-v', `${volume}:/data`];
  await host.docker('run', '-d', ...where, ...options, image, 'sh', '-c', script(pauseMs));
}

/** Everything that the writer's container on this host has acknowledged so far, over all its starts. */
export async function acknowledged(host: ClusterHost, { container }: Writer): Promise<readonly Acknowledgement[]> {
  const lines = (await host.docker('logs', container)).split('\n');
  return lines.flatMap((line) => parseAcknowledgement(line) ?? []);
}

/** Of a line of a writer's log; null: it says something else. */
export function parseAcknowledgement(line: string): Acknowledgement | null {
  const [, record, durable] = /^acknowledged (.*) (\d+\.\d+)$/.exec(line) ?? [];
  const entry = record === undefined ? null : parseEntry(record);
  return entry === null ? null : { ...entry, durableSeconds: Number(durable) };
}

/** What the volume has, as a container on this host reads it. */
export function readRecords(host: ClusterHost, { volume }: Writer): Promise<string> {
  // The last line break matters, and output loses it on the way: a mark comes after it.
  return host.sh(volume, 'cat /data/records && echo END').then((text) => text.slice(0, -'END'.length));
}

/** Compares what a volume has with what was acknowledged, in any order and from all hosts. Pure. */
export function checkRecords<Heard extends Entry>(text: string, acknowledgements: readonly Heard[]): Verdict<Heard> {
  const lines = text.split('\n');
  // After the last line break: nothing, or what a crash left of a record.
  lines.pop();
  const faults: string[] = [];
  const found = new Map<number, Entry>();
  let last = 0;
  for (const [index, line] of lines.entries()) {
    const entry = parseEntry(line);
    if (entry === null) {
      faults.push(`line ${index + 1} is no record: "${line.slice(0, 80)}"`);
      continue;
    }
    const { number } = entry;
    if (number <= last) faults.push(`record ${number} comes after record ${last}`);
    if (number > last + 1) faults.push(`records ${last + 1} to ${number - 1} are missing`);
    last = Math.max(last, number);
    found.set(number, entry);
  }
  const lost = acknowledgements.filter((entry) => !same(entry, found.get(entry.number)));
  return { last, faults, lost };
}

/** The whole records of what a volume has. Pure. */
export function entriesIn(text: string): readonly Entry[] {
  return text
    .split('\n')
    .slice(0, -1)
    .flatMap((line) => parseEntry(line) ?? []);
}

function same(one: Entry, other: Entry | undefined): boolean {
  return one.number === other?.number && one.node === other.node && one.bootSeconds === other.bootSeconds;
}

function parseEntry(line: string): Entry | null {
  const [, number, node, seconds] = /^(\d+) (\S+) (\d+\.\d+)$/.exec(line) ?? [];
  if (number === undefined || node === undefined || seconds === undefined) return null;
  return { number: Number(number), node, bootSeconds: Number(seconds) };
}
