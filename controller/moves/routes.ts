import { z } from 'zod';
import type { Store } from '../store/store.ts';

/** Which ports of which services clients are led to, as the proxies' documents say it. Only what is asked here is read of them. */

const port = z.int();
const containerSchema = z.object({
  declared: z.object({
    service: z.string().nullable(),
    routes: z.array(z.object({ targetPort: port })),
    links: z.array(z.object({ service: z.string(), targetPort: port })),
  }),
});
const madeSchema = z.object({ service: z.string(), targetPort: port });

export type Routes = {
  /** Services that something leads to. */
  readonly services: ReadonlySet<string>;
  /** Ports that routes and links made by flockctl, or links of other containers, lead to. */
  portsOf(service: string): readonly number[];
};

export async function readRoutes(store: Store): Promise<Routes> {
  const [containers, ...made] = await Promise.all(
    ['proxy/containers/', 'proxy/routes/', 'proxy/links/'].map((prefix) => store.list(prefix, { fresh: true })),
  );
  const services = new Set<string>();
  const ports = new Map<string, Set<number>>();
  const add = (service: string, targetPort: number) => {
    services.add(service);
    ports.set(service, (ports.get(service) ?? new Set()).add(targetPort));
  };
  for (const { value } of containers ?? []) {
    const declared = parsed(containerSchema, value)?.declared;
    if (declared === undefined) continue;
    if (declared.service !== null && declared.routes.length > 0) services.add(declared.service);
    for (const link of declared.links) add(link.service, link.targetPort);
  }
  for (const { value } of made.flat()) {
    const one = parsed(madeSchema, value);
    if (one !== null) add(one.service, one.targetPort);
  }
  return { services, portsOf: (service) => [...(ports.get(service) ?? [])] };
}

function parsed<T>(schema: z.ZodType<T>, text: string): T | null {
  try {
    return schema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
