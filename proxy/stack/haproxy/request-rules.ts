import { ownAnswers, refused, returned } from './answers.ts';
import type { Layout } from './layout.ts';
import type { RequestLog } from './request-log.ts';
import { backendNames, mapNames, nowhere } from './wanted.ts';

/** How HAProxy finds a request's slot, and what of its headers goes on. The rules of proxy/gate and proxy/model/match.ts. Pure. */

/** Hosts with more labels are the gate's to match: each takes one look-up more where an exact host is not found. */
export const labelsMax = 8;

/** Requests of a service. */
const retriedPerSecondMax = 5_000;
/** Of a petabyte. */
const lengthDigitsMax = 16;
const label = '[a-z0-9_-]{1,63}';
/** Whatever else the gate's reader makes a host of (trailing dots, IPv6, odd ports) goes there, as does what is none. */
const plainHost = `^${label}(\\.${label}){0,${labelsMax - 1}}(:([0-9]{1,4}|[1-5][0-9]{4}))?$`;

const claims = 'x[-_]forwarded[-_](for|host|port|proto|server)|x[-_]real[-_]ip|forwarded';
const hopByHop = 'keep-alive|proxy-authenticate|proxy-authorization|proxy-connection|te|http2-settings';
/** HAProxy has answered "100 Continue" itself by then. */
const dropped = `${claims}|${hopByHop}|expect`;

export function requestRules(options: {
  readonly layout: Layout;
  readonly protocol: 'http' | 'https';
  readonly port: number;
  readonly headersMsMax: number;
  readonly log: RequestLog;
}): readonly string[] {
  const { layout, protocol, port, headersMsMax, log } = options;
  const names = mapNames.requests(protocol, port);
  const [exact, below, paused] = [names.exact, names.below, mapNames.paused].map((name) => layout.map(name));
  const gate = backendNames.gate(protocol, port);
  const set = (name: string, expression: string) => `http-request set-var(txn.${name}) ${expression}`;
  const isMissing = '!{ var(txn.slot) -m found }';
  const wide = Array.from({ length: labelsMax - 1 }, (_, index) =>
    set('slot', `var(txn.host),field(${index + 2},.,0),concat(,txn.path,/),map_beg(${below}) if ${isMissing}`),
  );
  // The order of conditions is that of how seldom they hold: the first that does not ends the check.
  return [
    'acl is-plain var(txn.host) -m found',
    'acl is-upgrade req.hdr(upgrade) -i websocket',
    'acl is-path url_beg /',
    `http-request ${returned(ownAnswers.method)} if METH_CONNECT`,
    `http-request ${refused(ownAnswers.badTarget)} unless is-path || { url_beg -i http:// https:// } || { url * }`,
    // HAProxy gives it on, and a service may end the value there.
    `http-request ${refused(ownAnswers.badRequest)} if { req.hdrs -m reg '\\x00' }`,
    // HAProxy does not notice that more digits are more than it can count.
    `http-request ${refused(ownAnswers.badLength)} if { req.hdr(content-length) -m len gt ${lengthDigitsMax} }`,
    `http-request ${refused(ownAnswers.version)} unless { req.ver -m str 1.1 2.0 1.0 }`,
    `http-request ${refused(ownAnswers.oldCoding)} if HTTP_1.0 { req.hdr(transfer-encoding) -m found }`,
    // HTTP/1.0 needs none, but the next one speaks 1.1.
    `http-request set-header host %[var(txn.none)] if HTTP_1.0 !{ req.fhdr(host) -m found }`,
    set('host', `req.fhdr(host),lower,field(1,:) if { req.fhdr(host) -m reg -i '${plainHost}' }`),
    set('path', 'path'),
    set('slot', `var(txn.host),concat(,txn.path,/),map_beg(${exact})`),
    ...wide,
    set('slot', `str(*),concat(,txn.path,/),map_beg(${exact}) if ${isMissing} is-plain`),
    `http-request ${returned(ownAnswers.noRoute)} if ${isMissing} is-plain`,
    `http-request ${returned(ownAnswers.noRoute)} if { var(txn.slot) -m str ${nowhere} }`,
    `http-request wait-for-body time ${headersMsMax} at-least 1 if { req.hdr(expect) -i 100-continue }`,
    ...requestHeaders(protocol),
    ...(log.every === 1 ? [] : [`http-request set-log-level silent unless { rand(${log.every}) eq 0 }`]),
    // The host is not plain.
    `use_backend ${gate} if ${isMissing}`,
    `use_backend ${gate} if { var(txn.slot),map_str(${paused}) -m found }`,
    `use_backend ${backendNames.upgrades('%[var(txn.slot)]')} if is-upgrade METH_GET`,
    'use_backend %[var(txn.slot)]',
    // Workers from before a reload may not have the slot.
    `default_backend ${gate}`,
  ];
}

/** The gate tells of its requests itself. */
export const gateRules: readonly string[] = ['http-request set-log-level silent'];

function requestHeaders(protocol: 'http' | 'https'): readonly string[] {
  const ends = `host=\\"%[req.fhdr(host)]\\";proto=${protocol}`;
  return [
    // Only of a request to switch, or when it names headers: HAProxy has taken out "close" and "keep-alive".
    'http-request lua.clean-connection if { req.hdr(connection) -m found }',
    `http-request del-header ${quoted(`^(${dropped})$`)} -m reg if { req.hdr_names -m reg ${quoted(amongNames(dropped))} }`,
    'http-request del-header upgrade if { req.hdr(upgrade) -m found } !is-upgrade || { req.hdr(upgrade) -m found } !METH_GET',
    // All that strangers say is gone.
    'http-request add-header x-forwarded-for %[src]',
    `http-request add-header x-forwarded-proto ${protocol}`,
    'http-request add-header x-forwarded-host %[req.fhdr(host)]',
    `http-request add-header forwarded "for=%[src];${ends}" if { src 0.0.0.0/0 }`,
    `http-request add-header forwarded "for=\\"[%[src]]\\";${ends}" unless { src 0.0.0.0/0 }`,
    // A service gets the path alone, whoever was written before it.
    'http-request set-uri %[pathq] unless is-path || { url * }',
  ];
}

/** Of services' answers, but for those that open a WebSocket. */
export const responseRules: readonly string[] = [
  // HAProxy takes any three digits.
  `http-response ${returned(ownAnswers.garbage)} unless { status 200:599 } || { status 101 }`,
  'http-response lua.clean-connection if { res.hdr(connection) -m found }',
  `http-response del-header ${quoted(`^(${hopByHop})$`)} -m reg if { res.hdr_names -m reg ${quoted(amongNames(hopByHop))} }`,
  'http-response del-header upgrade if { res.hdr(upgrade) -m found } !{ status 101 }',
];

/**
 * Requests that may be sent twice are, when a service has closed the connection in the moment in which it was used. The copy that
 * HAProxy makes of each for that costs a quarter of its time; with so many there are no old idle connections to meet.
 */
export const retryRules: readonly string[] = [
  'http-request disable-l7-retry unless { method GET HEAD OPTIONS PUT DELETE TRACE }',
  `http-request disable-l7-retry if { be_sess_rate gt ${retriedPerSecondMax} }`,
];

/** Of all names in one text, with commas between them: one look at it is cheaper than one at each name. */
function amongNames(names: string): string {
  return `(^|,)(${names})(,|$)`;
}

function quoted(text: string): string {
  return `'${text}'`;
}

/**
 * Takes the headers out that Connection names, and Connection itself but for a switch to a WebSocket; HAProxy writes its own. In Lua,
 * because HAProxy's rules can't delete a header whose name they have read.
 */
export const connectionCleaner = `
local kept = { ["content-length"] = true, ["transfer-encoding"] = true, ["host"] = true, ["trailer"] = true, ["upgrade"] = true }

local function clean(http, headers, delete)
  local upgrades = false
  for _, value in pairs(headers["connection"] or {}) do
    for name in string.gmatch(string.lower(value), "[^,%s]+") do
      if name == "upgrade" then upgrades = true end
      if not kept[name] and name ~= "close" and name ~= "keep-alive" then delete(http, name) end
    end
  end
  delete(http, "connection")
  return upgrades
end

local function is_websocket(headers)
  for _, value in pairs(headers["upgrade"] or {}) do
    if string.lower(value) == "websocket" then return true end
  end
  return false
end

core.register_action("clean-connection", { "http-req" }, function(txn)
  local headers = txn.http:req_get_headers()
  local upgrades = clean(txn.http, headers, txn.http.req_del_header)
  if upgrades and is_websocket(headers) then txn.http:req_add_header("connection", "upgrade") end
end)

core.register_action("clean-connection", { "http-res" }, function(txn)
  local headers = txn.http:res_get_headers()
  local upgrades = clean(txn.http, headers, txn.http.res_del_header)
  if upgrades and is_websocket(headers) then txn.http:res_add_header("connection", "upgrade") end
end)
`.trimStart();
