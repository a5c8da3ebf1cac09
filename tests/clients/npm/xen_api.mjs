// xen-api, unmodified, as Xen Orchestra uses it, against a pool of two hosts: see ../xen_api.sh, which runs this in a folder of its
// own. Host 2 has disks that host 1 does not see, so what concerns them is answered by the master with a redirect.
//
// package.json holds undici at a version before 6.29, which ends the process when an answer that lasts to the end of the connection
// ends while its reader is not reading (nodejs/undici issue 5360).
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, createWriteStream, statSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { CancelToken } from 'promise-toolbox'
import { createClient } from 'xen-api'

const { POOL_URL, POOL_HTTPS_URL, HOST_2_URL, POOL_USER, POOL_PASSWORD, POOL_DIR, SCRIPTS } = process.env
const MIB = 1 << 20
const SETTLE_MS = 60e3

let passed = 0
let failed = 0

async function check(what, fn) {
  try {
    await fn()
    ++passed
    console.log('ok - ' + what)
  } catch (error) {
    ++failed
    console.log('NOT OK - ' + what + ': ' + (error.stack ?? error))
  }
}

// Until the condition holds; its value.
async function until(what, condition) {
  for (const end = Date.now() + SETTLE_MS; ; await sleep(20)) {
    const value = await condition()
    if (value) {
      return value
    }
    assert(Date.now() < end, 'not within a minute: ' + what)
  }
}

const client = (url, options) =>
  createClient({
    url,
    auth: { user: POOL_USER, password: POOL_PASSWORD },
    debounce: 20,
    eventPollDelay: 500,
    ...options,
  })

const sha = bytes => createHash('sha256').update(bytes).digest('hex')

async function bytesOf(response) {
  const chunks = []
  for await (const chunk of response.body) {
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

// A stream of which the client knows the length, or does not.
function streamOf(bytes, isLengthKnown = true) {
  const pieces = []
  for (let i = 0; i < bytes.length; i += 65536) {
    pieces.push(bytes.subarray(i, i + 65536))
  }
  const stream = Readable.from(pieces, { objectMode: false })
  if (isLengthKnown) {
    stream.length = bytes.length
  }
  return stream
}

function fileStream(path, isLengthKnown = true) {
  const stream = createReadStream(path)
  if (isLengthKnown) {
    stream.length = statSync(path).size
  }
  return stream
}

// ---- the cache ----

async function connecting() {
  for (const url of [POOL_URL, POOL_HTTPS_URL, HOST_2_URL]) {
    for (const transport of ['auto', 'xml-rpc']) {
      await check(`connects to ${url} by ${transport}`, async () => {
        const x = client(url, { transport, watchEvents: false })
        await x.connect()
        assert.equal(x.status, 'connected')
        assert.equal((await x.getAllRecords('host')).length, 2)
        assert.equal(x.pool.$ref, (await x.call('pool.get_all'))[0])
        await x.disconnect()
      })
    }
  }
}

async function objects(x, warnings) {
  await check('the cache holds what the pool has', async () => {
    await x.objectsFetched
    const all = Object.values(x.objects.all)
    for (const type of ['VM', 'host', 'VDI', 'SR', 'network', 'VBD', 'PBD', 'task', 'pool']) {
      const refs = Object.keys(await x.call(`${type}.get_all_records`))
      assert.deepEqual(all.filter(o => o.$type === type).map(o => o.$ref).sort(), refs.sort(), type)
    }
    const vm = all.find(o => o.$type === 'VM' && o.name_label === 'vm1')
    assert.equal(vm.$resident_on.$type, 'host')
    assert.equal(x.getObjectByUuid(vm.uuid), vm)
    assert(vm.$VBDs.every(vbd => vbd.$VM === vm))
  })
  await check('types come from system.listMethods, and each can be read', () => {
    assert(x._types.length > 50, x._types.join())
    assert.deepEqual(warnings.filter(w => w.includes('_refreshCachedRecords')), [])
  })
  await check('a barrier waits for what was done before it', async () => {
    const [network] = await x.getAllRecords('network')
    for (let i = 0; i < 5; i++) {
      await network.set_name_description('step ' + i)
      assert.equal((await x.barrier(network.$ref)).name_description, 'step ' + i)
    }
    await network.update_other_config({ 'xo:a': '1', 'xo:b': 'é<&>' })
    assert.equal((await x.barrier(network.$ref)).other_config['xo:b'], 'é<&>')
    await network.update_other_config('xo:a', null)
    assert.equal((await x.barrier(network.$ref)).other_config['xo:a'], undefined)
  })
  await check('objects that come and go are told', async () => {
    const told = []
    x.objects.on('add', set => told.push(...Object.keys(set)))
    x.objects.on('remove', set => told.push(...Object.keys(set)))
    const ref = await x.call('network.create', { name_label: 'n', name_description: '', other_config: {} })
    const { uuid } = await x.barrier(ref)
    await x.call('network.destroy', ref)
    await x.barrier()
    assert.equal(x.getObjectByRef(ref, null), null)
    await until('both were told', () => told.filter(id => id === uuid).length === 2)
  })
}

async function tasks(x) {
  const vm = Object.values(x.objects.all).find(o => o.$type === 'VM' && o.name_label === 'vm1')
  await check('a task that succeeds: live migration', async () => {
    const to = Object.values(x.objects.all).find(o => o.$type === 'host' && o.$ref !== vm.resident_on)
    assert.equal(await vm.$callAsync('pool_migrate', to.$ref, { live: 'true' }), '')
    assert.equal((await x.barrier(vm.$ref)).$resident_on, x.getObjectByRef(to.$ref))
  })
  await check('one with a result', async () => {
    const [template] = Object.values(x.objects.all).filter(o => o.$type === 'VM' && o.is_default_template)
    const ref = await template.$callAsync('clone', 'copy')
    assert.equal((await x.barrier(ref)).name_label, 'copy')
    assert.equal(await x.callAsync('VM.destroy', ref), '')
  })
  await check('one that fails says why', async () => {
    await assert.rejects(vm.$callAsync('start', false, false), error => {
      assert.deepEqual([error.code, ...error.params], ['VM_BAD_POWER_STATE', vm.$ref, 'halted', 'running'])
      return true
    })
    await assert.rejects(x.call('VM.start', vm.$ref, false, false), { code: 'VM_BAD_POWER_STATE' })
  })
  await check('tasks go, and their number is right', async () => {
    await until('they are gone', async () => {
      await x.barrier()
      const left = (await x.call('task.get_all')).length
      return x._nTasks === left && Object.values(x.objects.all).filter(o => o.$type === 'task').length === left
    })
  })
}

// ---- disks and VMs on host 2 alone ----

const SIZE = 8 * MIB + 65536
const content = Buffer.concat([randomBytes(3 * MIB), Buffer.alloc(4 * MIB), randomBytes(MIB + 65536)])

async function localSR(x, url = HOST_2_URL) {
  const host = (await x.getAllRecords('host')).find(h => h.address === new URL(url).hostname)
  for (const pbd of await x.getAllRecords('PBD')) {
    const sr = await x.getRecord('SR', pbd.SR)
    if (pbd.host === host.$ref && !sr.shared && sr.content_type !== 'iso') {
      return sr
    }
  }
  throw new Error(`${url} has no SR of its own`)
}

const newDisk = (x, sr, fields) =>
  x.call('VDI.create', {
    name_label: 'd',
    name_description: '',
    SR: sr.$ref,
    virtual_size: SIZE,
    type: 'user',
    sharable: false,
    read_only: false,
    other_config: {},
    ...fields,
  })

async function diskIs(x, vdi, expected) {
  const response = await x.getResource('/export_raw_vdi/', { query: { vdi, format: 'raw' } })
  const bytes = await bytesOf(response)
  await response.task
  assert.equal(bytes.length, expected.length)
  assert.equal(sha(bytes), sha(expected))
}

async function rawDisks(x, sr) {
  const disk = await newDisk(x, sr)
  const other = Buffer.from(content).reverse()
  for (const [how, body, sent] of [
    ['bytes', content, content],
    ['a stream of known length', streamOf(other), other],
    ['a stream of unknown length', streamOf(content, false), content],
  ]) {
    await check(`a raw disk on host 2 is written from ${how}`, async () => {
      await x.putResource(body, '/import_raw_vdi/', { query: { vdi: disk, format: 'raw' } })
      await diskIs(x, disk, sent)
    })
  }
  await check('as VHD it comes back the same', async () => {
    const response = await x.getResource('/export_raw_vdi/', { query: { vdi: disk, format: 'vhd' } })
    const vhd = await bytesOf(response)
    await response.task
    assert.equal(vhd.subarray(0, 8).toString(), 'conectix')
    const other = await newDisk(x, sr)
    await x.putResource(streamOf(vhd), '/import_raw_vdi/', { query: { vdi: other, format: 'vhd' } })
    await diskIs(x, other, content)
    await x.call('VDI.destroy', other)
  })
  await check('a disk that is not there is an error', async () => {
    await assert.rejects(x.getResource('/export_raw_vdi/', { query: { vdi: 'OpaqueRef:1', format: 'raw' }, task: false }), /404/)
  })
  return disk
}

const busy = async (x, type, ref) => Object.keys(await x.call(`${type}.get_current_operations`, ref)).length > 0

async function newVM(x, disk) {
  const template = Object.values(x.objects.all).find(o => o.$type === 'VM' && o.name_label === 'Other install media')
  const vm = await x.callAsync('VM.clone', template.$ref, 'on host 2')
  await x.call('VM.remove_from_other_config', vm, 'disks')
  await x.callAsync('VM.provision', vm)
  await x.call('VBD.create', {
    VM: vm,
    VDI: disk,
    userdevice: '0',
    bootable: true,
    mode: 'RW',
    type: 'Disk',
    unpluggable: true,
    empty: false,
    other_config: {},
    qos_algorithm_type: '',
    qos_algorithm_params: {},
  })
  return vm
}

async function vmIs(x, refs, expected) {
  assert.equal(refs.length, 1)
  const vm = await x.getRecord('VM', refs[0])
  const vbds = await x.getRecords('VBD', vm.VBDs)
  await diskIs(x, vbds.find(b => b.type === 'Disk').VDI, expected)
  await x.callAsync('VM.destroy', vm.$ref)
  await x.callAsync('VDI.destroy', vbds.find(b => b.type === 'Disk').VDI)
}

async function wholeVMs(x, sr, vm) {
  for (const use_compression of ['false', 'zstd']) {
    const path = 'vm.' + use_compression
    await check(`a VM of host 2 is exported (compression ${use_compression})`, async () => {
      const response = await x.getResource('/export/', { query: { ref: vm, use_compression } })
      await pipeline(response.body, createWriteStream(path))
      assert.equal(await response.task, '')
      assert(statSync(path).size > 3 * MIB)
      assert.equal(await busy(x, 'VM', vm), false)
    })
    await check('and imported, of known length', async () => {
      await vmIs(x, await x.putResource(fileStream(path), '/import/', { query: { sr_id: sr.$ref } }), content)
    })
    await check('and of unknown length', async () => {
      await vmIs(x, await x.putResource(fileStream(path, false), '/import/', { query: { sr_id: sr.$ref } }), content)
    })
  }
  await check('half an archive makes nothing, and says why', async () => {
    const before = await x.call('VM.get_all')
    await writeFile('half', (await readFile('vm.false')).subarray(0, 2 * MIB))
    const other = Buffer.from(content).reverse()
  for (const isLengthKnown of [true, false]) {
      const task = await x.call('task.create', 'half', '')
      const query = { sr_id: sr.$ref }
      await assert.rejects(x.putResource(fileStream('half', isLengthKnown), '/import/', { query, task }))
      await until('the task fails', async () => (await x.call('task.get_status', task)) === 'failure')
      assert.deepEqual(await x.call('task.get_error_info', task), ['IMPORT_ERROR_PREMATURE_EOF'])
      await x.call('task.destroy', task)
    }
    await until('they are undone', async () => (await x.call('VM.get_all')).length === before.length)
  })
  await check('an export that is cancelled ends', async () => {
    const { token, cancel } = CancelToken.source()
    const response = await x.getResource(token, '/export/', { query: { ref: vm } })
    response.body.on('error', () => {}).once('data', () => cancel())
    await response.task?.catch(() => {})
    await until('the VM is free again', async () => !(await busy(x, 'VM', vm)))
  })
  await check('metadata go and come through the master', async () => {
    const response = await x.getResource('/export_metadata/', { query: { ref: vm } })
    const archive = await bytesOf(response)
    await response.task
    const result = await x.putResource(streamOf(archive), '/import_metadata/', { query: { dry_run: 'true' } })
    assert.deepEqual(result, [])
  })
}

async function blobs(x) {
  await check('a blob goes and comes', async () => {
    const blob = await x.call('pool.create_new_blob', x.pool.$ref, 'xo', 'image/png', false)
    for (const body of [content, streamOf(content)]) {
      assert.equal(await x.putResource(body, '/blob/', { query: { ref: blob } }), '')
      const response = await x.getResource('/blob/', { query: { ref: blob } })
      assert.equal(response.headers['content-type'], 'image/png')
      assert.equal(sha(await bytesOf(response)), sha(content))
      await response.task
    }
    await x.call('blob.destroy', blob)
  })
}

// ---- what ends meanwhile ----

async function losses(x) {
  await check('a session that is gone is renewed', async () => {
    const old = x.sessionId
    await x._call('session.logout', [old])
    assert.equal((await x.call('host.get_all')).length, 2)
    assert.notEqual(x.sessionId, old)
    await until('the cache follows again', () => x.barrier().then(() => true))
  })
  await check('a new master: the cache is read anew', async () => {
    const network = (await x.getAllRecords('network'))[0]
    execFileSync(SCRIPTS + '/pool', ['kill', 'master', '--dir', POOL_DIR])
    execFileSync(SCRIPTS + '/pool', ['start', 'master', '--dir', POOL_DIR])
    await until('it answers', () => x.call('host.get_all').then(hosts => hosts.length === 2, () => false))
    await x.call('network.set_name_description', network.$ref, 'after')
    await until('the cache has it', () => x.getObjectByRef(network.$ref).name_description === 'after')
    await x.barrier()
  })
}

const warnings = []
console.warn = (...args) => warnings.push(args.map(a => a?.stack ?? String(a)).join(' '))

await connecting()
const x = client(POOL_URL)
await x.connect()
let refreshed = 0
await objects(x, warnings)
const refresh = x._refreshCachedRecords
x._refreshCachedRecords = function (types) {
  refreshed++
  return refresh.call(this, types)
}
await tasks(x)
const sr = await localSR(x)
const disk = await rawDisks(x, sr)
await wholeVMs(x, sr, await newVM(x, disk))
await blobs(x)
await check('the number of tasks was right all the time', () => assert.equal(refreshed, 0))
await check('the client had nothing to complain of', () =>
  assert.deepEqual(warnings.filter(w => !w.includes('missing length')), [])
)
await losses(x)
await x.disconnect()
const tls = client(POOL_HTTPS_URL)
await tls.connect()
await tls.objectsFetched
await check('over TLS, by redirect and by way of the master', async () => {
  const other = Buffer.from(content).reverse()
  const near = await newDisk(tls, await localSR(tls, POOL_HTTPS_URL))
  for (const to of [disk, near]) {
    for (const [bytes, isLengthKnown] of [[other, true], [content, false]]) {
      await tls.putResource(streamOf(bytes, isLengthKnown), '/import_raw_vdi/', { query: { vdi: to, format: 'raw' } })
      await diskIs(tls, to, bytes)
    }
  }
})
await tls.disconnect()
console.log(`${passed} passed, ${failed} failed`)
process.exit(failed === 0 && passed > 0 ? 0 : 1)
