import { FlockError } from '../../controller/model/errors.ts';
import { quote } from '../../controller/model/names.ts';
import { nearNames } from '../../controller/model/near-names.ts';
import type { ServiceName } from '../model/names.ts';
import type { ServiceDoc } from '../model/records.ts';
import type { Seen } from '../model/status.ts';

const knownMax = 8;

/** Throws `service-not-found` with the names that are near. `remedy`: what else can be done, in words. */
export function existingService(name: ServiceName, seen: Seen, remedy = ''): ServiceDoc {
  const { services } = seen.collected.records;
  const found = services.find((service) => service.name === name);
  if (found !== undefined) return found;
  const known = services.map((service) => String(service.name));
  const near = nearNames(name, known);
  const rest = known.length > knownMax ? ` and ${known.length - knownMax} more` : '';
  const list =
    near.length > 0
      ? `did you mean ${near.join(' or ')}?`
      : known.length === 0
        ? 'there is none yet: start a container with a label such as flock.service=web'
        : `there are ${known.slice(0, knownMax).join(', ')}${rest}`;
  throw new FlockError('service-not-found', `there is no service ${quote(name)}; ${list}${remedy}`, { name, near });
}
