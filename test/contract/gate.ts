import { gateHold } from './gate-hold.ts';
import { gateHttp } from './gate-http.ts';
import { gateHttpFaults } from './gate-http-faults.ts';
import { gateLimits } from './gate-limits.ts';
import { gateRoutes } from './gate-routes.ts';
import { gateSmuggling } from './gate-smuggling.ts';
import type { ProxyUnderTest, StartProxy } from './gate-support.ts';
import { gateTcp } from './gate-tcp.ts';

/**
 * What every proxy of flock does on real sockets, whether the gate serves alone or has other layers before it:
 *
 *     gateContract('embedded', (limits) => startEmbedded(limits));
 *
 * Each known hole of the packages underneath has a test here, with the reason on top.
 */
export function gateContract(name: string, start: StartProxy, { rewrites = false } = {}): void {
  describe(`gate contract: ${name}`, function () {
    this.timeout(30_000);
    let ends: (() => unknown)[] = [];
    const context = {
      rewrites,
      async start(limits = {}): Promise<ProxyUnderTest> {
        const proxy = await start(limits);
        ends.push(() => proxy.dispose());
        return proxy;
      },
      later(end: () => unknown) {
        ends.push(end);
      },
    };
    afterEach('end what the test has started', async () => {
      const last = ends;
      ends = [];
      for (const end of last.reverse()) await end();
    });
    describe('routes', () => gateRoutes(context));
    describe('http', () => gateHttp(context));
    describe('http with faults', () => gateHttpFaults(context));
    describe('smuggling', () => gateSmuggling(context));
    describe('limits', () => gateLimits(context));
    describe('tcp', () => gateTcp(context));
    describe('pause and release', () => gateHold(context));
  });
}
