// What npm would publish: packed, installed in an empty folder, imported and served: with native
// modules compiled into the user's cache and found there again, or brought along by the package.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { writeQuickCompiler } from './quick-compiler.ts';
import { complete, serve } from './serve.ts';

const skip =
  process.env['VLLM_TS_PACKAGE_TESTS'] === undefined &&
  'slow, needs the npm registry: set VLLM_TS_PACKAGE_TESTS=1';

t.test(
  'the packed tarball installs, imports and serves',
  { skip, timeout: 1_700_000 },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-pack-'));
    const cache = join(folder, 'cache');
    const compiler = join(folder, 'c++');
    writeQuickCompiler(compiler, 'c++');
    const env = { ...process.env, XDG_CACHE_HOME: cache, CXX: compiler };
    const npm = (cwd: string, ...args: string[]) =>
      execFileSync('npm', args, { cwd, env, stdio: 'pipe' }).toString();

    npm(packageRoot, 'pack', '--ignore-scripts', '--pack-destination', folder);
    const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))!;
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    npm(folder, 'install', '--ignore-scripts', '--no-audit', '--no-fund', `./${tarball}`);
    const files = readdirSync(join(folder, 'node_modules/vllm-ts'), { recursive: true }).map(
      String,
    );
    t.notOk(
      files.some((name) => name.startsWith('dist/test') || name.endsWith('.node')),
      'no tests, no binaries',
    );

    const program = `
    import * as main from 'vllm-ts';
    import * as client from 'vllm-ts/client';
    console.log(typeof main.LLM, typeof client.EngineClient);`;
    const imported = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      cwd: folder,
      env,
    });
    t.equal(imported.toString().trim(), 'function function');

    const typed = `
    import { LLM, type LlmOutput } from 'vllm-ts';
    import { EngineClient } from 'vllm-ts/client';
    export async function use(llm: LLM, client: EngineClient): Promise<[string, number]> {
      const outputs: LlmOutput[] = await llm.generate(['a'], { maxTokens: 1 });
      return [outputs[0]!.outputs[0]!.text, client.info.maxModelLen];
    }
    // @ts-expect-error
    export const notANumber = (llm: LLM) => llm.generate(1);`;
    writeFileSync(join(folder, 'typed.ts'), typed);
    const modules = join(packageRoot, 'node_modules');
    const tsc = spawnSync(
      process.execPath,
      [
        join(modules, 'typescript/lib/tsc.js'),
        ...['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022'],
        ...['--typeRoots', join(modules, '@types'), '--types', 'node', 'typed.ts'],
      ],
      { cwd: folder },
    );
    t.equal(tsc.stdout.toString(), '', 'both entries bring their types');

    // Not through npx: it would not pass the signal on.
    const command = join(folder, 'node_modules/.bin/vllm-ts');
    const answers = async (env: NodeJS.ProcessEnv) => {
      const server = await serve(command, ['serve', '--port', '0'], { cwd: folder, env });
      t.ok((await complete(server.url)).length > 0);
      t.equal(await server.stop(), 0);
      return server.output();
    };

    const told = (...args: string[]) => spawnSync(command, args, { env, encoding: 'utf8' });
    t.match(told('--version').stdout, /^\d+\.\d+\.\d+\n$/);
    t.match(told('serve', '--prot', '1'), { status: 64, stderr: /^vllm-ts: unknown flag --prot/ });
    t.notOk(existsSync(cache), 'nothing was compiled for them');

    t.match(await answers(env), /^build: built kernels\.node$/m, 'compiled into the cache');
    const compiled = readdirSync(cache, { recursive: true, withFileTypes: true })
      .filter(({ name }) => name.endsWith('.node'))
      .map((entry) => join(entry.parentPath, entry.name));
    t.same(compiled.map((file) => basename(file)).sort(), ['kernels.node', 'os.node']);

    const withoutCompiler = { ...env, PATH: join(folder, 'bin'), CXX: '' };
    mkdirSync(withoutCompiler.PATH);
    symlinkSync(process.execPath, join(withoutCompiler.PATH, 'node'));
    t.notMatch(await answers(withoutCompiler), /^build:/m, 'once');
  },
);

t.test(
  'a package with prebuilt modules compiles nothing',
  { skip, timeout: 1_700_000 },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vllm-ts-prebuilt-'));
    const library = join(folder, 'kernels.so');
    writeFileSync(library, 'never opened: there is no driver');
    const script = join(packageRoot, 'scripts/package.mjs');
    const pack = (...args: string[]) =>
      spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });
    t.match(pack(), { status: 64, stderr: /^package: one OUT_DIR is needed/ });
    t.match(pack(folder, '--library', join(folder, 'none.so')), {
      status: 64,
      stderr: /none\.so does not exist/,
    });
    const { stdout, stderr, status } = pack(join(folder, 'out'), '--library', library);
    t.equal(status, 0, stderr);

    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', stdout.trim()], {
      cwd: folder,
      stdio: 'pipe',
    });
    const prebuilds = join(folder, 'node_modules/vllm-ts/prebuilds');
    const [target] = readdirSync(prebuilds);
    t.same(readdirSync(join(prebuilds, target!)).sort(), [
      'kernels.node',
      'libvt_cuda.so',
      'os.node',
    ]);

    // Nothing but node on the PATH.
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    symlinkSync(process.execPath, join(bin, 'node'));
    const cache = join(folder, 'cache');
    const env = { ...process.env, PATH: bin, CXX: '', XDG_CACHE_HOME: cache };
    const command = join(folder, 'node_modules/.bin/vllm-ts');
    const server = await serve(command, ['serve', '--port', '0'], { cwd: folder, env });
    t.ok((await complete(server.url)).length > 0);
    t.equal(await server.stop(), 0);
    t.notMatch(server.output(), /^build:/m);
    t.notOk(existsSync(cache), 'what the package brings is not compiled');
  },
);
