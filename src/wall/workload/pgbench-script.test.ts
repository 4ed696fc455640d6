import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PosternError } from '../../base/errors.ts';
import { parseScript, type ScriptCommand } from './pgbench-script.ts';

/** As short as can be compared: the statements with their variables in braces, the meta commands by name. */
function outline(text: string): string[] {
  return parseScript(text, 'test.sql').map((command) => `${command.line} ${words(command)}`);
}

function words(command: ScriptCommand): string {
  switch (command.kind) {
    case 'sql': {
      const text = command.pieces.map((piece) =>
        typeof piece === 'string'
          ? piece
          : `{${piece.variable}${piece.quoting === 'none' ? '' : ` ${piece.quoting}`}}`,
      );
      const into = command.into === undefined ? '' : ` \\${command.into.kind} ${command.into.prefix}`;
      return `${command.isCombined ? 'combined ' : ''}${text.join('')}${into}`;
    }
    case 'set':
      return `set ${command.name}`;
    case 'sleep':
      return `sleep ${command.unitMs}`;
    default:
      return command.kind;
  }
}

describe('parseScript', () => {
  it.each<[string, string[]]>([
    ['SELECT 1;', ['1 SELECT 1']],
    ['SELECT 1', ['1 SELECT 1']],
    ['SELECT\n  1;;\n\n;SELECT 2 ;\n', ['1 SELECT\n  1', '4 SELECT 2']],
    ['-- a comment; \\set\n\n/* and; ; */ SELECT 1 -- :b;\n + 2;', ['3 /* and; ; */ SELECT 1 \n + 2']],
    ['/* a /* nested; */ one; */ SELECT 1;', ['1 /* a /* nested; */ one; */ SELECT 1']],
    ["SELECT ';', 'it''s;', E'\\';', \"a;\"\"\";", ["1 SELECT ';', 'it''s;', E'\\';', \"a;\"\"\""]],
    ['SELECT $$;$$, $a$;$$;$a$, a$b$, 1;', ['1 SELECT $$;$$, $a$;$$;$a$, a$b$, 1']],
    ['SELECT (1;2);', ['1 SELECT (1;2)']],
    ['SELECT :a, :b1+:_c;', ['1 SELECT {a}, {b1}+{_c}']],
    [
      "SELECT :a::int, a[1:2], '1:2', ::x, :::y, 'q:z', ':w';",
      ["1 SELECT {a}::int, a[1:2], '1:2', ::x, :::y, 'q{z part}', '{w whole}'"],
    ],
    ['/* :a */ SELECT 1;', ['1 /* :a */ SELECT 1']],
    ['SELECT 1 \\; SELECT 2;', ['1 combined SELECT 1 ; SELECT 2']],
    ['SELECT 1 \\; SELECT a\\:b;', ['1 combined SELECT 1 ; SELECT a:b']],
    ['SELECT a\\:b;', ['1 SELECT a:b']],
    [
      '\\set x 1\nSELECT :x;\n\\set y :x + \\\n 1\nSELECT 2;',
      ['1 set x', '2 SELECT {x}', '3 set y', '5 SELECT 2'],
    ],
    ['SELECT 1\n\\set x 1\n', ['1 SELECT 1', '2 set x']],
    [
      'SELECT 1 AS a \\gset\nSELECT 2 AS b; \\aset p_\n',
      ['1 SELECT 1 AS a \\gset ', '2 SELECT 2 AS b \\aset p_'],
    ],
    [
      'SELECT 1;\r\n\\sleep 5 ms\r\n\\sleep :n us\n\\sleep 1\n\\sleep 3s',
      ['1 SELECT 1', '2 sleep 1', '3 sleep 0.001', '4 sleep 1000', '5 sleep 1000'],
    ],
    [
      '\\if :a > 1\n\\startpipeline\nSELECT 1;\n\\syncpipeline\n\\endpipeline\n\\elif false\n\\else\nSELECT 2;\n\\endif\n',
      [
        '1 if',
        '2 startpipeline',
        '3 SELECT 1',
        '4 syncpipeline',
        '5 endpipeline',
        '6 elif',
        '7 else',
        '8 SELECT 2',
        '9 endif',
      ],
    ],
    ['\\SET x 1\n\\If true\nSELECT 1;\n\\ENDIF', ['1 set x', '2 if', '3 SELECT 1', '4 endif']],
  ])('reads %j', (text, expected) => {
    expect(outline(text)).toEqual(expected);
  });

  it.each<[string, number, RegExp]>([
    ['', 1, /no SQL statement/],
    ['\\set x 1\n', 1, /no SQL statement/],
    ['SELECT 1;\n\\shell ls\n', 2, /\\shell is not supported: it runs commands of the system/],
    ['SELECT 1;\n\\setshell x ls\n', 2, /\\setshell is not supported/],
    ['SELECT 1;\n\\setrandom x 1 2\n', 2, /write \\set NAME random/],
    ['SELECT 1;\n\\include x\n', 2, /\\include is not supported$/],
    ['SELECT 1;\n\n\\set x 1 +\n', 3, /ends too early/],
    ['SELECT 1;\n\\set 1x 1\n', 2, /"1x" is not the name of a variable/],
    ['SELECT 1;\n\\set x\n', 2, /ends too early/],
    ['\\gset\nSELECT 1;', 1, /\\gset follows an SQL statement/],
    ['SELECT 1 \\gset\n\\gset\n', 2, /\\gset follows an SQL statement/],
    ['SELECT 1 \\gset a b\n', 1, /"a b" is not the name/],
    ['SELECT 1;\n\\else\n', 2, /\\else without \\if/],
    ['SELECT 1;\n\\endif\n', 2, /\\endif without \\if/],
    ['\\if true\nSELECT 1;\n', 1, /\\if without \\endif/],
    ['\\if true\n\\else\nSELECT 1;\n\\elif true\n\\endif', 4, /\\elif after \\else/],
    ['\\if true\n\\else x\nSELECT 1;\n\\endif', 2, /\\else stands alone/],
    ['\\startpipeline\nSELECT 1;\n', 1, /\\startpipeline without \\endpipeline/],
    ['SELECT 1;\n\\endpipeline\n', 2, /\\endpipeline without/],
    ['SELECT 1;\n\\syncpipeline\n', 2, /\\syncpipeline without/],
    ['\\startpipeline\n\\startpipeline\nSELECT 1;\n', 2, /within a pipeline/],
    ['\\startpipeline\nSELECT 1 \\gset\n\\endpipeline', 2, /not possible within a pipeline/],
    ['\\if true\n\\startpipeline\nSELECT 1;\n\\endif\n', 4, /same side of an \\if/],
    ['SELECT 1;\n\\sleep x\n', 2, /\\sleep is followed by/],
    ['SELECT 1;\n\\sleep 1 h\n', 2, /\\sleep is followed by/],
    ["SELECT 1;\nSELECT 'a;\n", 2, /single quotes does not end/],
    ['SELECT "a;', 1, /double quotes does not end/],
    ['SELECT $x$ a;', 1, /begins with \$x\$ does not end/],
    ['SELECT /* a;', 1, /comment .* does not end/],
  ])('refuses %j in line %i', (text, line, message) => {
    expect(() => parseScript(text, 'test.sql')).toThrow(PosternError);
    expect(() => parseScript(text, 'test.sql')).toThrow(new RegExp(`^test\\.sql:${line}: `));
    expect(() => parseScript(text, 'test.sql')).toThrow(message);
  });

  it('takes any text, and fails by its own error alone', () => {
    const part = fc.constantFrom(
      ..."SELECT ; ' \" $$ $a$ /* */ -- \n \\ \\set \\if \\endif \\gset : :a :: ( ) E' x 1 +".split(' '),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 30 }), fc.constantFrom('', ' ', '\n'), (parts, between) => {
        const text = parts.join(between);
        try {
          const lines = text.split('\n').length;
          for (const { line } of parseScript(text, 't')) expect(line).toBeLessThanOrEqual(lines);
        } catch (error) {
          expect(error).toBeInstanceOf(PosternError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
