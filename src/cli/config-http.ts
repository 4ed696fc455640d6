/** `http` and `router` of postern.yaml. */
import { z } from 'zod';

export const httpSchema = z
  .strictObject({
    host: z.string().default('127.0.0.1'),
    port: z.number().int().min(0).max(65535),
  })
  .optional();

export const routerSchema = z
  .strictObject({
    /** In postern.routers. Default: the name of the machine. */
    name: z.string().min(1).max(200).optional(),
  })
  .optional();
