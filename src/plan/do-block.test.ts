/** DO blocks around one DDL statement: carried out over the nodes; all others stay on home. */
import { beforeAll, describe, expect, it } from 'vitest';
import { statementOf } from '../../test/support/example-map.ts';
import { loadParser } from '../sql/parser.ts';
import type { DdlChange } from './ddl/change.ts';

beforeAll(() => loadParser());

function changeOf(body: string): DdlChange | undefined {
  const { placement, refusal } = statementOf(`DO $$ ${body} $$`);
  if (refusal) throw refusal;
  return placement.kind === 'everywhere' ? placement.change : undefined;
}

describe('a DO block', () => {
  it.each<[string, string[]]>([
    ["BEGIN CREATE TYPE mood AS ENUM ('a', 'b'); EXCEPTION WHEN duplicate_object THEN null; END", ['42710']],
    [
      'begin create schema s; exception when duplicate_schema or duplicate_object then null; end;',
      ['42P06', '42710'],
    ],
    [
      `BEGIN
         CREATE EXTENSION pgcrypto;
       EXCEPTION
         WHEN duplicate_object THEN NULL;
         WHEN unique_violation THEN RAISE NOTICE 'there';
       END`,
      ['42710', '23505'],
    ],
  ])('%s', (body, states) => {
    expect(changeOf(body)).toMatchObject({ tag: 'DO', mode: 'transaction', forgives: states });
  });

  it('asks first where it says IF NOT EXISTS', () => {
    const change = changeOf(
      `BEGIN IF NOT EXISTS (SELECT 1 FROM pg_type WHERE typname = 'mood') THEN CREATE TYPE mood AS ENUM ('a'); END IF; END`,
    );
    expect(change?.tag).toBe('DO');
    expect(change?.questions[0]?.text).toMatch(/^SELECT EXISTS \(SELECT 1 FROM pg_type/);
    const others = (change?.questions.slice(1) ?? []).map(() => []);
    expect(change?.steps([[['true']], ...others])).toEqual([]);
    expect(change?.steps([[['false']], ...others])).not.toEqual([]);
  });

  it.each([
    'BEGIN PERFORM 1; EXCEPTION WHEN duplicate_object THEN null; END',
    "BEGIN CREATE TYPE mood AS ENUM ('a'); EXCEPTION WHEN others THEN null; END",
    "BEGIN CREATE TYPE mood AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN DELETE FROM notes; END",
    "BEGIN CREATE TYPE a AS ENUM ('a'); CREATE TYPE b AS ENUM ('b'); EXCEPTION WHEN duplicate_object THEN null; END",
    'BEGIN IF NOT EXISTS (SELECT f()) THEN CREATE SCHEMA s; END IF; END',
    'BEGIN UPDATE notes SET a = 1; END',
  ])('stays on home: %s', (body) => expect(changeOf(body)).toBeUndefined());
});
