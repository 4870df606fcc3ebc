import { z } from 'zod';

/** Of Docker's answers, what controllers use. Everything else in `Config` and `HostConfig` is passed on as it is. */

const text = z.string();
const texts = z.array(text).nullish();

const endpointSchema = z.looseObject({
  NetworkID: text.default(''),
  IPAMConfig: z.record(text, z.unknown()).nullish(),
  Aliases: texts,
  Links: texts,
  DriverOpts: z.record(text, text).nullish(),
  GwPriority: z.int().nullish(),
});

const mountSchema = z.object({
  Type: text,
  Name: text.nullish(),
  Source: text.default(''),
  Destination: text,
  Driver: text.nullish(),
  RW: z.boolean().default(true),
});

/** An element of HostConfig.Mounts: what was asked for with `--mount`. */
const askedMountSchema = z.looseObject({
  Type: text,
  Source: text.nullish(),
  Target: text,
  ReadOnly: z.boolean().nullish(),
  VolumeOptions: z.looseObject({ Subpath: text.nullish() }).nullish(),
});

const limitedDevicesSchema = z.array(z.looseObject({ Path: text })).nullish();

/** Of `GET /containers/ID/json`. */
export const inspectedWorkloadSchema = z.object({
  Id: text.regex(/^[0-9a-f]{64}$/),
  Name: text,
  Created: text,
  Image: text,
  RestartCount: z.int().default(0),
  State: z.object({
    Status: text,
    ExitCode: z.int().default(0),
    Error: text.default(''),
    StartedAt: text,
    FinishedAt: text.default(''),
    Health: z.object({ Status: text }).nullish(),
  }),
  Config: z.looseObject({
    Hostname: text.default(''),
    Image: text,
    Labels: z.record(text, text).nullish(),
    AttachStdin: z.boolean().default(false),
    Healthcheck: z.looseObject({ Test: texts }).nullish(),
    StopTimeout: z.int().nullish(),
    Entrypoint: texts,
    MacAddress: text.nullish(),
  }),
  HostConfig: z.looseObject({
    NetworkMode: text.default('default'),
    PidMode: text.default(''),
    IpcMode: text.default(''),
    UTSMode: text.default(''),
    AutoRemove: z.boolean().default(false),
    RestartPolicy: z.object({ Name: text, MaximumRetryCount: z.int().default(0) }).nullish(),
    Binds: texts,
    Mounts: z.array(askedMountSchema).nullish(),
    VolumesFrom: texts,
    Links: texts,
    Ulimits: z.array(z.looseObject({ Name: text })).nullish(),
    Devices: z.array(z.looseObject({ PathOnHost: text.default('') })).nullish(),
    BlkioWeightDevice: limitedDevicesSchema,
    BlkioDeviceReadBps: limitedDevicesSchema,
    BlkioDeviceWriteBps: limitedDevicesSchema,
    BlkioDeviceReadIOps: limitedDevicesSchema,
    BlkioDeviceWriteIOps: limitedDevicesSchema,
    DeviceRequests: z.array(z.unknown()).nullish(),
  }),
  NetworkSettings: z.object({ Networks: z.record(text, endpointSchema).nullish() }),
  Mounts: z.array(mountSchema).nullish(),
});
export type InspectedWorkload = z.infer<typeof inspectedWorkloadSchema>;
export type InspectedEndpoint = z.infer<typeof endpointSchema>;

/** Of `GET /networks/NAME`. */
export const inspectedNetworkSchema = z.object({
  Name: text,
  Driver: text,
  Scope: text.default('local'),
  EnableIPv4: z.boolean().optional(),
  EnableIPv6: z.boolean().default(false),
  Internal: z.boolean().default(false),
  Attachable: z.boolean().default(false),
  IPAM: z
    .object({
      Driver: text.default('default'),
      Options: z.record(text, text).nullish(),
      Config: z.array(z.record(text, z.unknown())).nullish(),
    })
    .nullish(),
  Options: z.record(text, text).nullish(),
  Labels: z.record(text, text).nullish(),
});
export type InspectedNetwork = z.infer<typeof inspectedNetworkSchema>;

/** A managed plugin is called as it was installed: `flock`, `flock:latest`, `registry.example/flock:0.1.0`. */
export function isFlockDriver(driver: string | null | undefined): boolean {
  return typeof driver === 'string' && /(^|\/)flock([:@]|$)/.test(driver);
}
