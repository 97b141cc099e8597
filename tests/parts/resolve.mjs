// Finds the npm packages install.sh put into ${MCP_PARTS_DIR:-<repo>/.parts}, so that the
// servers and clients run as `node FILE` from any directory without a node_modules beside them.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const parts = process.env.MCP_PARTS_DIR ?? fileURLToPath(new URL('../../.parts', import.meta.url));

/** @param name a package or one of its exports, as `import` would name it */
export const part = createRequire(resolve(parts, 'npm', 'package.json'));
