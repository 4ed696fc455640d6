/**
 * The report as JSON: its definition, from which docs/reference/wall-report.schema.json is made, and the reading of one that
 * was written before.
 */
import { z } from 'zod';
import { explanationSchema } from '../explain/explanation.ts';
import { sweepResultSchema } from '../measure/sweep.ts';

/** Raised when a field changes its meaning or goes away; new fields don't raise it. */
export const FORMAT_VERSION = 2;

const curveSchema = z.object({
  ...sweepResultSchema.unwrap().shape,
  label: z.string(),
  explanation: explanationSchema.optional(),
});

export const reportSchema = z.object({
  format: z.literal('postern-wall'),
  formatVersion: z.literal(FORMAT_VERSION),
  title: z.string(),
  /** What the figures say. */
  verdict: z.string(),
  notes: z.array(z.string()),
  curves: z.array(curveSchema),
});

/** As JSON Schema, draft 2020-12. */
export function reportJsonSchema(): object {
  return {
    ...z.toJSONSchema(reportSchema, {
      reused: 'ref',
      override: ({ jsonSchema }) => {
        // "Read-only" is of the types in the program; a file has no such thing.
        delete jsonSchema.readOnly;
      },
    }),
    title: 'What postern wall measure writes with --json',
  };
}
