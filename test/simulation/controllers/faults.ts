import type { Host } from './host.ts';
import type { World } from './world.ts';

/** What goes wrong while a run lasts. Each fault ends by itself; `heal` ends all. */
export type Faults = { strike(): void; heal(): void };

type Fault = { readonly weight: number; begin(world: World, host: Host): (() => void) | null };

const kinds: Readonly<Record<string, Fault>> = {
  'controller crashes': {
    weight: 4,
    begin(_world, host) {
      host.killController();
      return () => host.startController();
    },
  },
  'controller hangs': {
    weight: 2,
    begin(_world, host) {
      const gate = host.gate();
      gate?.pause();
      return () => gate?.resume();
    },
  },
  'power off': {
    weight: 2,
    begin(_world, host) {
      host.powerOff();
      return () => host.powerOn();
    },
  },
  'store away from one': {
    weight: 2,
    begin(_world, host) {
      host.cut();
      return () => host.heal();
    },
  },
  'no leader': {
    weight: 2,
    begin(world) {
      world.store.loseLeader();
      return () => world.store.electLeader();
    },
  },
  'a write comes late': {
    weight: 2,
    begin(world, host) {
      world.store.loseNext(host.name, world.random.between(500, 9_000));
      return null;
    },
  },
  'session ends': {
    weight: 1,
    begin(_world, host) {
      host.plugin.endSession();
      return null;
    },
  },
  'takes no connections': {
    weight: 2,
    begin(_world, host) {
      for (let number = 1; number <= 4; number += 1) host.mute.add(`app${number}`);
      return () => host.mute.clear();
    },
  },
  'starts are refused': {
    weight: 1,
    begin(_world, host) {
      host.engine.refuseStarts('no space left on device');
      return () => host.engine.refuseStarts(null);
    },
  },
};

/** Mostly short; now and then long enough for sessions to end and guards to be over. */
const lastsMs = (chance: number) => (chance < 0.6 ? 200 + chance * 5_000 : chance * 45_000);
const deck = Object.entries(kinds).flatMap(([name, { weight }]) => Array.from({ length: weight }, () => name));

export function createFaults(world: World): Faults {
  const { scheduler, random } = world;
  const running = new Set<() => void>();
  return {
    strike() {
      const name = random.pick(deck);
      const host = random.pick(world.hosts);
      world.trace(() => `FAULT ${name} at ${host.name}`);
      const end = kinds[name]?.begin(world, host) ?? null;
      if (end === null) return;
      const ended = () => {
        if (!running.delete(ended)) return;
        world.trace(() => `END of ${name} at ${host.name}`);
        end();
      };
      running.add(ended);
      scheduler.after(lastsMs(random.next()), ended);
    },
    heal() {
      for (const end of running) end();
      for (const host of world.hosts) {
        host.heal();
        host.gate()?.resume();
        // It is started when Docker has come up.
        if (host.isBooting()) continue;
        if (host.isUp()) host.startController();
        else host.powerOn();
      }
      world.store.electLeader();
    },
  };
}
