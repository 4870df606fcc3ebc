import { type Request, type RequestHandler, Router } from 'express';
import { type Host, initCluster, type MemberRequest } from '../../controller/cluster/founding.ts';
import {
  defaultAddress,
  defaultNodeName,
  type HostFacts,
  readHostFacts,
} from '../../controller/cluster/host-defaults.ts';
import { joinCluster } from '../../controller/cluster/joining.ts';
import { cordonNode, drainNode, labelNode, listNodes, viewNode } from '../../controller/cluster/membership.ts';
import { removeNode } from '../../controller/cluster/removal.ts';
import { viewStatus } from '../../controller/cluster/status.ts';
import { createToken, tokenTtlMsDefault } from '../../controller/cluster/tokens.ts';
import {
  initBody,
  joinBody,
  type MemberView,
  nodeBody,
  removalBody,
  type StatusView,
  type TokenView,
  tokenBody,
} from '../../controller/model/api.ts';
import type { VolumeDoc } from '../../controller/model/cluster.ts';
import { FlockError } from '../../controller/model/errors.ts';
import {
  formatPeerAddress,
  type NodeIdentity,
  parseLabelChanges,
  parseLabelWords,
  parsePeerAddress,
  parseStoreAddress,
  storeAddressDefault,
} from '../../controller/model/identity.ts';
import { parseNodeName } from '../../controller/model/names.ts';
import { param, parseBody } from '../../controller/server/problems.ts';
import type { Store } from '../../controller/store/store.ts';
import { askMember } from '../peer/client.ts';

export type ClusterDeps = Host & {
  /** Open while the node is in a cluster. */
  store(): Store | null;
  /** Starts what a member runs, with what has just been saved; `identity` and `store` answer the new ones from then on. */
  joined(identity: NodeIdentity): Promise<void>;
  /** Waits until the node has started, or throws why it can't. */
  ready?: () => Promise<unknown>;
  /** Of a volume, without its owner's own. */
  copiesWanted?: (volume: VolumeDoc) => number;
  hostFacts?: () => Promise<HostFacts>;
};

type Fields = {
  readonly name: string | null;
  readonly address: string | null;
  readonly store: string | null;
  readonly storeToken: string | null;
  readonly labels: readonly string[];
};

/**
 * The cluster's part of flockctl's API: the routes below /v1/cluster, /v1/tokens, /v1/nodes and /v1/status. Wants express.json before
 * it, and noSuchCall and answerProblems after it.
 */
export function clusterRoutes(deps: ClusterDeps): Router {
  const router = Router();
  const hostFacts = deps.hostFacts ?? readHostFacts;
  let isChanging = false;

  const answering =
    (work: (request: Request) => Promise<unknown>): RequestHandler =>
    async (request, response) => {
      response.json(await work(request));
    };

  function member(): { readonly identity: NodeIdentity; readonly store: Store } {
    const found = memberOrNull();
    if (found === null)
      throw new FlockError(
        'no-cluster',
        'this host is in no cluster: "flockctl init" makes one, "flockctl join" makes this host part of one',
      );
    return found;
  }

  function memberOrNull() {
    const [identity, store] = [deps.identity(), deps.store()];
    return identity === null || store === null ? null : { identity, store };
  }

  /** Two at once would write each other's files. */
  async function becoming(work: () => Promise<NodeIdentity>): Promise<MemberView> {
    if (isChanging)
      throw new FlockError(
        'too-many-requests',
        'this host is just becoming part of a cluster: wait for that command to end',
      );
    isChanging = true;
    try {
      await deps.ready?.();
      const identity = await work();
      await deps.joined(identity);
      return viewMember(identity);
    } finally {
      isChanging = false;
    }
  }

  async function memberRequest(fields: Fields): Promise<MemberRequest> {
    const isGuessing = fields.name === null || fields.address === null;
    const facts = isGuessing ? await hostFacts() : { hostName: '', routed: null, addresses: [] };
    return {
      name: fields.name === null ? defaultNodeName(facts.hostName) : parseNodeName(fields.name),
      ...parsePeerAddress(fields.address ?? defaultAddress(facts)),
      labels: parseLabelWords(fields.labels),
      storeAddress: parseStoreAddress(fields.store ?? storeAddressDefault),
      storeToken: fields.storeToken,
    };
  }

  router.post(
    '/v1/cluster',
    answering(async (request) => {
      const { profile, ...fields } = parseBody(initBody, request);
      const wanted = { ...(await memberRequest(fields)), profile };
      return becoming(() => initCluster(deps, wanted));
    }),
  );
  router.post(
    '/v1/cluster/join',
    answering(async (request) => {
      const { member: address, token, ...fields } = parseBody(joinBody, request);
      const wanted = { ...(await memberRequest(fields)), member: parsePeerAddress(address), token };
      return becoming(() => joinCluster(deps, wanted, askMember));
    }),
  );
  router.post(
    '/v1/tokens',
    answering(async (request): Promise<TokenView> => {
      const { uses, ttlMs } = parseBody(tokenBody, request);
      const { identity, store } = member();
      const wanted = { uses, ttlMs: ttlMs ?? tokenTtlMsDefault };
      const { text, doc } = await createToken(store, identity.caCertificate, wanted, deps.nowMs());
      return { token: text, uses: doc.usesLeft, expiresAtMs: doc.expiresAtMs, address: formatPeerAddress(identity) };
    }),
  );
  router.get(
    '/v1/nodes',
    answering(() => listNodes(member().store)),
  );
  router.get(
    '/v1/nodes/:name',
    answering((request) => viewNode(member().store, param(request, 'name'))),
  );
  router.patch(
    '/v1/nodes/:name',
    answering(async (request) => {
      const { labels, cordoned, draining } = parseBody(nodeBody, request);
      const { store } = member();
      const name = param(request, 'name');
      if (labels !== undefined) await labelNode(store, name, parseLabelChanges(labels));
      if (draining !== undefined) await drainNode(store, name, draining);
      if (cordoned !== undefined) await cordonNode(store, name, cordoned);
      return viewNode(store, name);
    }),
  );
  router.delete(
    '/v1/nodes/:name',
    answering(async (request) => {
      const options = parseBody(removalBody, request);
      const force = options.force || request.query['force'] === 'true';
      await removeNode(member().store, param(request, 'name'), { ...options, force }, Date.now());
      return {};
    }),
  );
  router.get(
    '/v1/status',
    answering((): Promise<StatusView> => viewStatus(memberOrNull(), deps.copiesWanted)),
  );
  return router;
}

function viewMember({ clusterId, name, address, port }: NodeIdentity): MemberView {
  return { clusterId, name, address, port };
}
