// The run directory: unix sockets of all links and frontend.json, readable by this user alone. A
// lock socket in it, held by the supervisor, says that a server lives there; the kernel lets go of
// it however the supervisor ends.
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { FrontendJson } from '../../common/config.ts';
import { StartError } from '../../common/errors.ts';
import { maxSocketPathBytes } from '../../common/wire/transport.ts';
import { closeListening, listenUnix, type Listening } from '../../common/os/index.ts';

const freshPrefix = 'vllm-ts-';
/** A younger folder may be one that another server is just making. */
const staleAfterMs = 10_000;

export class RunDir {
  readonly path: string;
  private readonly lock: Listening;
  private readonly isOurs: boolean;
  private readonly files = new Set<string>(['lock', 'frontend.json']);

  private constructor(path: string, lock: Listening, isOurs: boolean) {
    this.path = path;
    this.lock = lock;
    this.isOurs = isOurs;
  }

  /** A fresh folder (0700) under XDG_RUNTIME_DIR, else under the temp folder. */
  static fresh(env: NodeJS.ProcessEnv = process.env): RunDir {
    const parent = isFolder(env['XDG_RUNTIME_DIR']) ? env['XDG_RUNTIME_DIR'] : tmpdir();
    checkPath(join(parent, `${freshPrefix}XXXXXX`, 'lock'));
    removeStale(parent);
    const path = makeIn(parent, () => mkdtempSync(join(parent, freshPrefix)));
    return new RunDir(path, takeLock(path), true);
  }

  /** A folder that the operator names; made if it is missing, else it must be theirs and 0700. */
  static named(name: string): RunDir {
    const path = resolve(name);
    checkPath(join(path, 'lock'));
    const made = makeIn(path, () => makeFolders(path));
    if (made) chmodSync(path, 0o700);
    const stat = lstatSync(path);
    if (!stat.isDirectory()) throw new StartError(1, `run directory ${path} is not a folder`);
    if ((stat.mode & 0o077) !== 0 || stat.uid !== process.getuid?.())
      throw new StartError(1, `run directory ${path} must belong to this user with mode 0700`);
    return new RunDir(path, takeLock(path), made);
  }

  /** Path of a file that a process makes in this folder. */
  file(name: string): string {
    this.files.add(name);
    return join(this.path, name);
  }

  /** ipc:// address of a socket in this folder. Throws if its path would be too long. */
  socket(name: string): string {
    const path = join(this.path, name);
    checkPath(path);
    this.files.add(name);
    return `ipc://${path}`;
  }

  /** Writes a file (0600) that whoever reads it sees whole. */
  write(name: string, content: string): string {
    const path = join(this.path, name);
    this.files.add(name);
    writeFileSync(`${path}.new`, content, { mode: 0o600 });
    renameSync(`${path}.new`, path);
    return path;
  }

  writeFrontendJson(content: FrontendJson): string {
    return this.write('frontend.json', `${JSON.stringify(content, null, 2)}\n`);
  }

  /** Removes what was made here, and the folder if we made it. */
  remove(): void {
    closeListening(this.lock);
    if (this.isOurs) rmSync(this.path, { recursive: true, force: true });
    else for (const name of this.files) rmSync(join(this.path, name), { force: true });
  }
}

/**
 * False if it is there. Node's own way (`recursive`) tries for ever where the system says that the
 * parent is missing though it is not, as /proc does.
 */
function makeFolders(path: string): boolean {
  if (existsSync(path)) return false;
  makeFolders(dirname(path));
  mkdirSync(path, { mode: 0o700 });
  return true;
}

function takeLock(folder: string): Listening {
  try {
    return listenUnix(join(folder, 'lock'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw notMade(folder, error);
    throw new StartError(1, `run directory ${folder} is in use by another server`);
  }
}

function makeIn<T>(folder: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw notMade(folder, error);
  }
}

function notMade(folder: string, error: unknown): StartError {
  return new StartError(
    1,
    `no run directory can be made in ${folder} (${(error as Error).message}); ` +
      'set XDG_RUNTIME_DIR or --frontend-address to another folder',
  );
}

function checkPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= maxSocketPathBytes) return;
  throw new StartError(
    1,
    `socket path ${path} has ${bytes} bytes, at most ${maxSocketPathBytes} work; ` +
      'set XDG_RUNTIME_DIR or --frontend-address to a shorter folder',
  );
}

function isFolder(path: string | undefined): path is string {
  if (path === undefined || path === '') return false;
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** Fresh folders of supervisors that were killed: nobody holds their lock any more. */
function removeStale(parent: string): void {
  for (const name of namesIn(parent)) {
    if (!name.startsWith(freshPrefix)) continue;
    const path = join(parent, name);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat?.isDirectory() || stat.uid !== process.getuid?.()) continue;
    const lock = lstatSync(join(path, 'lock'), { throwIfNoEntry: false });
    if (!lock?.isSocket() || Date.now() - lock.mtimeMs < staleAfterMs) continue;
    try {
      const taken = listenUnix(join(path, 'lock'));
      rmSync(path, { recursive: true, force: true });
      closeListening(taken);
    } catch {
      // In use, or another start removes it at this moment.
    }
  }
}

/** Nothing where the folder may be written but not read. */
function namesIn(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
