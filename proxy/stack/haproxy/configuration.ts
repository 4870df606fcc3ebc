import { createHash } from 'node:crypto';
import type { GateLimits } from '../../gate/limits.ts';
import { errorPage, ownAnswers, returned } from './answers.ts';
import type { Layout } from './layout.ts';
import { type RequestLog, requestLogFormat } from './request-log.ts';
import { gateRules, labelsMax, requestRules, responseRules, retryRules } from './request-rules.ts';
import { type SlotKind, slotKindNames, slotKinds } from './slots.ts';
import { backendNames, mapNames, nowhere, type Server, type TlsPort, type Wanted } from './wanted.ts';

export type ConfigurationParts = {
  readonly layout: Layout;
  readonly limits: GateLimits;
  readonly hasIpv6: boolean;
  readonly log: RequestLog;
};

/** `digest`: of all that a reload is needed for. HAProxy tells it as its description. */
export type Configuration = { readonly text: string; readonly digest: string };

/** HAProxy's whole configuration. With the maps beside it HAProxy comes up as it is to be. Pure. */
export function renderConfiguration(wanted: Wanted, parts: ConfigurationParts): Configuration {
  const structure = render(wanted, parts, 'none', () => []);
  const pems = [...wanted.structure.certificates].map(([name, { digest }]) => `${name} ${digest}`).join('\n');
  const digest = createHash('sha256').update(`${structure}\n${pems}`).digest('hex').slice(0, 32);
  const text = render(wanted, parts, digest, (backend) =>
    [...(wanted.servers.get(backend)?.values() ?? [])].map((server) => `server ${serverText(server, parts.limits)}`),
  );
  return { text, digest };
}

/** Name, address and options, as the configuration and `add server` take them. */
export function serverText({ name, host, port, proxyProtocol }: Server, limits: GateLimits): string {
  const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const options = [`pool-max-conn ${limits.serviceIdleMax}`, `pool-purge-delay ${limits.serviceIdleMsMax}`];
  if (proxyProtocol) options.push('send-proxy-v2');
  return `${name} ${address} ${options.join(' ')}`;
}

type Section = readonly [title: string, lines: readonly string[]];

function render(
  { structure }: Wanted,
  parts: ConfigurationParts,
  description: string,
  serversOf: (backend: string) => readonly string[],
): string {
  const sections: Section[] = [
    globalSection(parts, description),
    ...defaults(parts),
    ...structure.http.flatMap((port) => httpSections(port, parts)),
    ...structure.tls.flatMap((tls) => tlsSections(tls, parts)),
    ...slotKindNames.flatMap((kind) => slotSections(kind, structure.stock[kind], serversOf)),
  ];
  return sections.map(([title, lines]) => [title, ...lines.map((line) => `  ${line}`), ''].join('\n')).join('\n');
}

/** What Linux gives a process is often a million or more, and HAProxy keeps memory for each. */
const filesMax = 200_000;
/** Old workers whose connections do not end; the oldest is ended first. */
const oldWorkersMax = 50;
/** The longest that HAProxy knows: tunnels are as old as they want to be, dead ones are found out by keep-alive. */
const tunnelSilence = '24d';

function globalSection({ layout, limits, log }: ConfigurationParts, description: string): Section {
  return [
    'global',
    [
      `description ${description}`,
      'no strict-limits',
      `fd-hard-limit ${filesMax}`,
      `hard-stop-after ${tunnelSilence}`,
      `mworker-max-reloads ${oldWorkersMax}`,
      `lua-load-per-thread ${layout.cleaner}`,
      `tune.bufsize ${limits.headerBytesMax}`,
      'tune.maxrewrite 2048',
      // Each takes five bytes or more.
      `tune.http.maxhdr ${Math.min(32_767, Math.floor(limits.headerBytesMax / 5))}`,
      'ssl-default-bind-options ssl-min-ver TLSv1.2',
      `log 127.0.0.1:${log.port} format raw local0`,
    ],
  ];
}

function defaults({ layout, limits }: ConfigurationParts): readonly Section[] {
  const common = [
    `timeout connect ${limits.connectMsMax}`,
    `timeout queue ${limits.connectMsMax}`,
    `timeout client ${limits.clientSilenceMsMax}`,
    `timeout server ${limits.serviceSilenceMsMax}`,
    `timeout tunnel ${tunnelSilence}`,
    `timeout client-fin ${limits.halfOpenMsMax}`,
    `timeout server-fin ${limits.halfOpenMsMax}`,
    'option clitcpka',
    'option srvtcpka',
    'clitcpka-idle 30s',
    'srvtcpka-idle 30s',
    `retries ${limits.attemptsMax - 1}`,
    'option redispatch 1',
  ];
  const http = [
    'mode http',
    ...common,
    `timeout http-request ${limits.headersMsMax}`,
    `timeout http-keep-alive ${limits.clientIdleMsMax}`,
    'option idle-close-on-response',
    // A client that has left is not worth the service's work.
    'option abortonclose',
    'http-reuse always',
    errorPage(ownAnswers.badRequest),
    errorPage(ownAnswers.slow),
    errorPage(ownAnswers.internal),
    errorPage(ownAnswers.unreachable),
    errorPage(ownAnswers.silent),
  ];
  const slot = [
    ...http,
    'retry-on conn-failure empty-response',
    ...retryRules,
    // A worker that is being stopped counts no servers, and goes on to use them.
    `http-request ${returned(ownAnswers.noBackend)} if { nbsrv eq 0 } !{ stopping }`,
    ...responseRules,
    // HAProxy's 503 for servers that take no connection.
    `errorfile 503 ${layout.unreachable}`,
  ];
  // The gate may be away for as long as its restart takes.
  const gateWaits = [`timeout server ${limits.heldMsMax + limits.serviceSilenceMsMax}`, 'retries 10'];
  return [
    ['defaults http', http],
    ['defaults http-gate', [...http, ...gateWaits, ...gateRules, errorPage(ownAnswers.restarting)]],
    ['defaults hr', [...slot, `balance ${slotKinds.hr.balance}`]],
    ['defaults hl', [...slot, `balance ${slotKinds.hl.balance}`]],
    ['defaults tcp', ['mode tcp', ...common, `balance ${slotKinds.tr.balance}`]],
    ['defaults tl', ['mode tcp', ...common, `balance ${slotKinds.tl.balance}`]],
  ];
}

const logged = ['log global', `log-format "${requestLogFormat}"`];

function httpSections(port: number, parts: ConfigurationParts): readonly Section[] {
  return [
    [
      `frontend http-${port} from http`,
      [...binds(port, parts), ...logged, ...requestRules({ ...parts, ...parts.limits, protocol: 'http', port })],
    ],
    gateSection('http', port, parts),
  ];
}

/** The name in the first message says whether TLS is passed through, or ended: then it goes to a socket of its certificate. */
function tlsSections({ port, certificates }: TlsPort, parts: ConfigurationParts): readonly Section[] {
  const { layout, limits } = parts;
  const sections: Section[] = [
    [`frontend tls-${port} from tcp`, [...binds(port, parts), ...nameRules(port, parts)]],
    [
      `backend ${backendNames.gate('tls', port)} from tcp`,
      layout.gateSockets('tls', port).map((path, index) => `server gate${index + 1} unix@${path} send-proxy-v2`),
    ],
    ...certificates.map(
      (name): Section => [
        `backend ${backendNames.ended(port, name)} from tcp`,
        [`server inner unix@${layout.innerSocket(port, name)} send-proxy-v2`],
      ],
    ),
  ];
  if (certificates.length === 0) return sections;
  const inner = certificates.map(
    (name) =>
      `bind unix@${layout.innerSocket(port, name)} mode 600 accept-proxy ssl crt ${layout.certificate(name)} alpn h2,http/1.1`,
  );
  const rules = requestRules({ ...parts, ...limits, protocol: 'https', port });
  return [
    ...sections,
    [
      `frontend https-${port} from http`,
      [...inner, `maxconn ${limits.connectionsPerListenerMax}`, ...logged, ...rules],
    ],
    gateSection('https', port, parts),
  ];
}

function nameRules(port: number, { layout, limits }: ConfigurationParts): readonly string[] {
  const names = mapNames.names(port);
  const [exact, below, paused] = [names.exact, names.below, mapNames.paused].map((name) => layout.map(name));
  const set = (name: string, expression: string) => `tcp-request content set-var(txn.${name}) ${expression}`;
  const isMissing = '!{ var(txn.slot) -m found }';
  return [
    `tcp-request inspect-delay ${limits.headersMsMax}`,
    'tcp-request content reject unless { req.ssl_hello_type 1 }',
    set('name', "req.ssl_sni,lower if { req.ssl_sni -m reg -i '^[a-z0-9_][a-z0-9_.-]{0,252}$' }"),
    'tcp-request content reject unless { var(txn.name) -m found }',
    set('slot', `var(txn.name),map_str(${exact})`),
    ...Array.from({ length: labelsMax - 1 }, (_, index) =>
      set('slot', `var(txn.name),field(${index + 2},.,0),map_str(${below}) if ${isMissing}`),
    ),
    set('slot', `str(*),map_str(${exact}) if ${isMissing}`),
    `tcp-request content reject if ${isMissing}`,
    `tcp-request content reject if { var(txn.slot) -m str ${nowhere} }`,
    `use_backend ${backendNames.gate('tls', port)} if { var(txn.slot),map_str(${paused}) -m found }`,
    'use_backend %[var(txn.slot)]',
    `default_backend ${backendNames.gate('tls', port)}`,
  ];
}

function gateSection(protocol: 'http' | 'https', port: number, { layout }: ConfigurationParts): Section {
  return [
    `backend ${backendNames.gate(protocol, port)} from http-gate`,
    layout.gateSockets(protocol, port).map((path, index) => `server gate${index + 1} unix@${path}`),
  ];
}

/** One for each family: an IPv4 client's address is to look like one. */
function binds(port: number, { limits, hasIpv6 }: ConfigurationParts): readonly string[] {
  const lines = [`bind 0.0.0.0:${port} backlog 4096`];
  if (hasIpv6) lines.push(`bind [::]:${port} v6only backlog 4096`);
  return [...lines, `maxconn ${limits.connectionsPerListenerMax}`];
}

function slotSections(kind: SlotKind, count: number, serversOf: (backend: string) => readonly string[]) {
  const { mode } = slotKinds[kind];
  const from = kind === 'tr' ? 'tcp' : kind;
  return Array.from({ length: count }, (_, index) => backendNames.slot(kind, index))
    .flatMap((slot) => (mode === 'http' ? [slot, backendNames.upgrades(slot)] : [slot]))
    .map((backend): Section => [`backend ${backend} from ${from}`, serversOf(backend)]);
}
