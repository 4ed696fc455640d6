/** `postern doctor`: reads the configuration, examines the cluster, prints and writes what was found. */
import { writeFileSync } from 'node:fs';
import { BOUNDS } from '../base/bounds.ts';
import { invalidParameter } from '../base/errors.ts';
import { examine } from '../doctor/examine.ts';
import type { Examination } from '../doctor/finding.ts';
import { reportJson, reportText } from '../doctor/report.ts';
import { readConfig } from './config.ts';
import type { DoctorOptions } from './doctor.ts';
import { failureText } from './failure-text.ts';
import { aborted, listenForInterrupt } from './interrupt.ts';
import { checkWritable } from './output-files.ts';

const STATUS_FAILED = 1;
const STATUS_FOUND = 3;
const STATUS_INTERRUPTED = 130;

export async function runDoctor(options: DoctorOptions): Promise<number> {
  const { signal } = listenForInterrupt();
  const file = options.json === '-' ? undefined : options.json;
  let examination: Examination | undefined;
  try {
    checkWritable([file]);
    const examining = examineConfigured(options);
    // Its sessions end with this process, and hold nothing that anybody waits for.
    await Promise.race([examining.catch(() => undefined), aborted(signal)]);
    if (signal.aborted) process.exit(STATUS_INTERRUPTED);
    examination = await examining;
    if (file !== undefined) writeFileSync(file, reportJson(examination));
  } catch (error) {
    process.stderr.write(`${failureText(error)}\n`);
    return STATUS_FAILED;
  }
  process.stdout.write(options.json === '-' ? reportJson(examination) : reportText(examination));
  return examination.findings.some(({ severity }) => severity !== 'note') ? STATUS_FOUND : 0;
}

async function examineConfigured(options: DoctorOptions): Promise<Examination> {
  const config = readConfig(options.config, process.env);
  const names = config.nodes.map(({ name }) => name);
  if (options.node !== undefined && !names.includes(options.node))
    throw invalidParameter(`there is no node "${options.node}"`, `The nodes are: ${names.join(', ')}.`);
  const examination = await examine({
    ...{ nodes: config.nodes, home: config.home, users: config.users.map(({ name }) => name) },
    connectionsPerNode: config.connectionsPerNode ?? BOUNDS.connectionsPerNode,
    allowed: config.bypass?.allowed ?? [],
    ...{ only: options.node, deep: options.deep, preparedSeconds: options.preparedFor },
  });
  if (!examination)
    throw invalidParameter(
      'no node could be asked',
      'Check that the servers run, and the addresses and passwords in the configuration.',
    );
  return examination;
}
