import { z } from 'zod';
import { createBodyOf } from '../model/container-spec.ts';
import { FlockError, hasCode } from '../model/errors.ts';
import { doSubnetsMeet, subnetsOf } from '../model/host-net.ts';
import { quote } from '../model/names.ts';
import type { ContainerSpec, FormerContainer, WorkloadDoc } from '../model/workload.ts';
import type { Docker } from './docker.ts';
import { isMadeFor, isOtherThan } from './documents.ts';
import type { Maker } from './home.ts';
import type { HostNet } from './host-net.ts';
import { createLocalContainers } from './local.ts';
import { putAway } from './putting-away.ts';

const imageSchema = z.object({ Id: z.string() });
const holderSchema = z.object({
  Id: z.string(),
  Name: z.string(),
  Image: z.string(),
  State: z.object({ Status: z.string() }),
  Config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }),
});

type MakerDocker = Pick<
  Docker,
  | 'create'
  | 'connect'
  | 'inspect'
  | 'list'
  | 'network'
  | 'createNetwork'
  | 'image'
  | 'stop'
  | 'remove'
  | 'rename'
  | 'setRestartPolicy'
>;

/** Who has the name of a container that is to be made. */
type Holder =
  | { readonly kind: 'made'; readonly id: string; readonly isOfImage: boolean }
  /** It makes way; what has run is kept under another name, unless all of it is elsewhere. */
  | { readonly kind: 'former'; readonly former: Pick<FormerContainer, 'containerId' | 'why'> }
  | { readonly kind: 'stranger' };

export function createMaker(docker: MakerDocker, net: Pick<HostNet, 'subnets'>): Maker {
  const locals = createLocalContainers(docker);

  /** A name that means the image, so that the container shows what the user called it; else its id. */
  async function imageOf(spec: ContainerSpec, name: string): Promise<string> {
    const [named, present] = await Promise.all([docker.image(spec.image), docker.image(spec.imageId)]);
    if (idOf(named) === spec.imageId) return spec.image;
    if (present !== null) return spec.imageId;
    throw new FlockError(
      'docker-failed',
      `container ${name} can't be made here: its image ${quote(spec.image)} (${spec.imageId}) is not on this host`,
      { image: spec.image },
    );
  }

  async function ensureNetworks(spec: ContainerSpec): Promise<void> {
    for (const [name, body] of Object.entries(spec.networksNeeded)) {
      if ((await docker.network(name)) !== null) continue;
      const asked = body as Readonly<Record<string, unknown>>;
      // Nobody asked for certain addresses: others do as well.
      const other = { ...asked, IPAM: { Driver: 'default', Options: {}, Config: [] } };
      const bodies = hasFixedAddress(spec, name)
        ? [asked]
        : doesMeet(asked, await net.subnets())
          ? [other, asked]
          : [asked, other];
      await makeNetwork(name, bodies);
    }
  }

  /** As the first of these bodies that Docker takes: another network of this host may have the addresses. */
  async function makeNetwork(name: string, bodies: readonly Readonly<Record<string, unknown>>[]): Promise<void> {
    for (const [index, body] of bodies.entries())
      try {
        return await docker.createNetwork(body);
      } catch (error) {
        if ((await docker.network(name)) !== null) return;
        if (!hasCode(error, 'docker-failed') || index === bodies.length - 1) throw error;
      }
  }

  async function holderOf(workload: WorkloadDoc): Promise<Holder | null> {
    const found = holderSchema.safeParse(await docker.inspect(workload.name)).data;
    // Docker takes the name for the beginning of an id, too.
    if (found === undefined || found.Name !== `/${workload.name}`) return null;
    const { Id: id, Image, State } = found;
    const former = workload.former.find(({ containerId }) => containerId === id);
    if (former !== undefined) return { kind: 'former', former };
    if (!isMadeFor(found, workload)) return { kind: 'stranger' };
    if (State.Status !== 'created') return { kind: 'former', former: { containerId: id, why: 'left' } };
    return { kind: 'made', id, isOfImage: Image === workload.spec.imageId };
  }

  /** What an earlier call has made, before it could say so. What makes way does so first; a stranger is left to Docker, which refuses the name. */
  async function madeBefore(workload: WorkloadDoc): Promise<string | null> {
    const holder = await holderOf(workload);
    if (holder?.kind === 'former') await putAway(docker, workload, holder.former);
    if (holder?.kind !== 'made') return null;
    const described = holder.isOfImage ? await locals.describeOne(holder.id) : null;
    if (described !== null && !isOtherThan(workload, described)) return holder.id;
    // Left by a move that came to nothing, before its workload got another image or other options; or cut off before it had its networks.
    await docker.remove(holder.id);
    return null;
  }

  return {
    async make(workload) {
      const { id, name, spec, createdAtMs } = workload;
      await ensureNetworks(spec);
      let made = await madeBefore(workload);
      if (made === null) {
        const body = createBodyOf(spec, { workload: id, createdAtMs, name, image: await imageOf(spec, name) });
        made = await docker.create(name, body).catch((error: unknown) => {
          throw hasCode(error, 'docker-failed') && isNameTaken(error) ? nameTaken(name, error) : error;
        });
      }
      for (const [network, endpoint] of Object.entries(spec.networks)) await docker.connect(network, made, endpoint);
      return made;
    },
    isNameTaken: async (workload) => (await holderOf(workload))?.kind === 'stranger',
  };
}

/** 409 says Docker, too, of a volume that has a volume's name here and another driver: then its own words are better. */
function isNameTaken({ facts, message }: FlockError): boolean {
  return facts['status'] === 409 && !/volume name/.test(message);
}

function nameTaken(name: string, cause: FlockError): FlockError {
  return new FlockError(
    'docker-failed',
    `container ${name} can't be made here: another container of this host has the name. Rename or remove that one (docker rename, docker rm)`,
    { name },
    { cause },
  );
}

function idOf(image: unknown): string | null {
  const parsed = imageSchema.safeParse(image);
  return parsed.success ? parsed.data.Id : null;
}

const endpointSchema = z.object({ IPAMConfig: z.record(z.string(), z.unknown()).nullish() }).nullish();
const networkingSchema = z.object({ EndpointsConfig: z.record(z.string(), z.unknown()) }).nullish();

/** Whether the container was given an address in this network (`--ip`). */
function hasFixedAddress({ create, networks }: ContainerSpec, name: string): boolean {
  const main = networkingSchema.safeParse(create['NetworkingConfig']).data?.EndpointsConfig[name];
  return Object.keys(endpointSchema.safeParse(main ?? networks[name]).data?.IPAMConfig ?? {}).length > 0;
}

/** Docker makes a network whose addresses it is told also over those of the host's own ones: who is there is not reached any more. */
function doesMeet(body: unknown, own: readonly string[]): boolean {
  return subnetsOf(body).some((subnet) => own.some((one) => doSubnetsMeet(subnet, one)));
}
