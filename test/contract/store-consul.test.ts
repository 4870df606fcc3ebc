import { createConsulStore } from '../../controller/store/consul.ts';
import { startConsul } from '../support/consul.ts';
import { storeContract } from './store.ts';

storeContract('consul', async () => {
  const consul = await startConsul();
  const [server] = consul.servers;
  if (server === undefined) throw new Error('no server was started');
  const { address } = server;
  const options = { address, prefix: 'flock/', timeoutMs: 1_500, watchWaitMs: 2_000 };
  const [here, there] = [createConsulStore(options), createConsulStore(options)];
  return {
    here,
    there,
    ttlMs: 2_000,
    fail: () => server.pause(),
    mend: async () => server.resume(),
    faultMsMax: 10_000,
    readsFail: true,
    async dispose() {
      await here.close();
      await there.close();
      await consul.stop();
    },
  };
});
