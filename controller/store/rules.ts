/** What an operation does to its key: the rules of the contract, for the stores that apply them themselves. Pure. */
import { unreachable } from '../model/errors.ts';
import type { Entry, Operation, SessionId } from './store.ts';

export type Verdict =
  | { readonly kind: 'conflict'; readonly reason: string }
  /** Nothing changes, the index neither: what Consul does with a value that is there already. */
  | { readonly kind: 'keep' }
  | { readonly kind: 'write'; readonly value: string; readonly session: SessionId | null }
  | { readonly kind: 'delete' };

export type Guards = {
  isAlive(session: SessionId): boolean;
  /** A session that had the key was ended a moment ago. */
  isDelayed(key: string): boolean;
};

export function judge(operation: Operation, current: Entry | null, guards: Guards): Verdict {
  const { key } = operation;
  switch (operation.kind) {
    case 'set':
      return written(current, operation.value, current?.session ?? null);
    case 'compare-and-set':
      if ((current?.index ?? null) !== operation.index) return stale(key, operation.index, current);
      return written(current, operation.value, current?.session ?? null);
    case 'delete':
      return current === null ? { kind: 'keep' } : { kind: 'delete' };
    case 'compare-and-delete':
      return current?.index === operation.index ? { kind: 'delete' } : stale(key, operation.index, current);
    case 'check-index':
      return current?.index === operation.index ? { kind: 'keep' } : stale(key, operation.index, current);
    case 'check-session':
      return current?.session === operation.session ? { kind: 'keep' } : notHeld(key, operation.session, current);
    case 'lock':
      if (!guards.isAlive(operation.session)) return conflict(`there is no session ${operation.session}`);
      if (current !== null && current.session !== null && current.session !== operation.session) {
        return conflict(`${key} is locked by session ${current.session}`);
      }
      if (guards.isDelayed(key)) return conflict(`${key} can't be locked yet: its lock delay runs`);
      return written(current, operation.value, operation.session);
    case 'unlock':
      if (current?.session !== operation.session) return notHeld(key, operation.session, current);
      return written(current, operation.value, null);
    default:
      return unreachable(operation);
  }
}

function written(current: Entry | null, value: string, session: SessionId | null): Verdict {
  return current !== null && current.value === value && current.session === session
    ? { kind: 'keep' }
    : { kind: 'write', value, session };
}

function stale(key: string, wanted: string | null, current: Entry | null): Verdict {
  return conflict(`${key} has index ${current?.index ?? 'none'}, not ${wanted ?? 'none'}`);
}

function notHeld(key: string, wanted: SessionId, current: Entry | null): Verdict {
  return conflict(`${key} is locked by ${current?.session ?? 'nobody'}, not by ${wanted}`);
}

function conflict(reason: string): Verdict {
  return { kind: 'conflict', reason };
}
