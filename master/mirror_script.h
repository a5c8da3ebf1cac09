/* mirror_script.h - the one Lua script through which everything is written to Redis
 *
 * Redis runs it as one step. Every verb first checks that the epoch and its holder are still ours,
 * and all its arguments, before it writes anything: so a master that was superseded cannot write,
 * and nothing is written by half. Verbs, after KEYS = {head, log, stage} and ARGV = {verb, epoch,
 * holder, prefix, ...}:
 *
 *   claim                                become the holder; refused below the epoch that Redis has,
 * or at the same epoch from another holder beat                                 nothing; tells what
 * Redis has write follows trim n (gen bytes)*    append n redo entries that follow generation
 * `follows`, then apply the m (class ref bytes)*           staged and these m records; empty bytes
 * delete a record stage reset m (class ref bytes)*     keep records for the next write, which are
 * more than one call may carry fill incarnation m (class ref bytes)*  put records of a whole model
 * that is being written anew turn incarnation generation class*   that model is complete: make it
 * current, drop the one before, restart the log with an entry that names the incarnation, which
 * tells watchers to read anew
 *
 * Answer: {"ok" | "refused" | "superseded", epoch, holder, generation, incarnation} as Redis has
 * them afterwards. */
#pragma once

static const char mirror_script[] =
    "local head, log, stage = KEYS[1], KEYS[2], KEYS[3]\n"
    "local verb, epoch, holder, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]\n"
    "local has = redis.call('HMGET', head, 'epoch', 'holder', 'generation', 'incarnation')\n"
    "for i = 1, 4 do has[i] = has[i] or '' end\n"
    "local function answer(word)\n"
    "  return {word, has[1], has[2], has[3], has[4]}\n"
    "end\n"
    "local function key(incarnation, class)\n"
    "  return prefix .. ':' .. incarnation .. ':' .. class\n"
    "end\n"
    "local function put(incarnation, class, ref, bytes)\n"
    "  if bytes == '' then\n"
    "    redis.call('HDEL', key(incarnation, class), ref)\n"
    "  else\n"
    "    redis.call('HSET', key(incarnation, class), ref, bytes)\n"
    "  end\n"
    "end\n"
    "\n"
    "if verb == 'claim' then\n"
    "  if has[1] ~= '' and (tonumber(has[1]) > tonumber(epoch)\n"
    "      or (has[1] == epoch and has[2] ~= holder)) then\n"
    "    return answer('superseded')\n"
    "  end\n"
    "  redis.call('HSET', head, 'epoch', epoch, 'holder', holder)\n"
    "  has[1], has[2] = epoch, holder\n"
    "  return answer('ok')\n"
    "end\n"
    "if has[1] ~= epoch or has[2] ~= holder then\n"
    "  if has[1] ~= '' and (tonumber(has[1]) > tonumber(epoch) or has[1] == epoch) then\n"
    "    return answer('superseded')\n"
    "  end\n"
    "  return answer('refused')\n"
    "end\n"
    "if verb == 'beat' then\n"
    "  return answer('ok')\n"
    "end\n"
    "\n"
    "if verb == 'write' then\n"
    "  local follows, trim, n = ARGV[5], ARGV[6], tonumber(ARGV[7])\n"
    "  local records = 8 + 2 * n\n"
    "  local m = tonumber(ARGV[records])\n"
    "  if has[3] ~= follows or has[4] == '' then\n"
    "    return answer('refused')\n"
    "  end\n"
    "  if #ARGV ~= records + 3 * m then\n"
    "    return redis.error_reply('ERR drover: write with a wrong number of arguments')\n"
    "  end\n"
    "  for i = 1, n do\n"
    "    redis.call('XADD', log, 'MAXLEN', '~', trim, ARGV[6 + 2 * i] .. '-0', 'c', ARGV[7 + 2 * "
    "i])\n"
    "  end\n"
    "  local staged = redis.call('LLEN', stage)\n"
    "  for first = 0, staged - 1, 3000 do\n"
    "    local part = redis.call('LRANGE', stage, first, first + 2999)\n"
    "    for i = 1, #part, 3 do put(has[4], part[i], part[i + 1], part[i + 2]) end\n"
    "  end\n"
    "  redis.call('DEL', stage)\n"
    "  for i = records + 1, #ARGV, 3 do put(has[4], ARGV[i], ARGV[i + 1], ARGV[i + 2]) end\n"
    "  has[3] = ARGV[6 + 2 * n]\n"
    "  redis.call('HSET', head, 'generation', has[3])\n"
    "  return answer('ok')\n"
    "end\n"
    "if verb == 'stage' then\n"
    "  if ARGV[5] == '1' then redis.call('DEL', stage) end\n"
    "  for i = 7, #ARGV do redis.call('RPUSH', stage, ARGV[i]) end\n"
    "  return answer('ok')\n"
    "end\n"
    "if verb == 'fill' then\n"
    "  for i = 7, #ARGV, 3 do put(ARGV[5], ARGV[i], ARGV[i + 1], ARGV[i + 2]) end\n"
    "  return answer('ok')\n"
    "end\n"
    "if verb == 'turn' then\n"
    "  local before = has[4]\n"
    "  has[3], has[4] = ARGV[6], ARGV[5]\n"
    "  redis.call('DEL', stage, log)\n"
    "  redis.call('XADD', log, has[3] == '0' and '0-1' or has[3] .. '-0', 'incarnation', has[4])\n"
    "  redis.call('HSET', head, 'generation', has[3], 'incarnation', has[4])\n"
    "  for i = 7, #ARGV do\n"
    "    if before ~= '' then redis.call('UNLINK', key(before, ARGV[i])) end\n"
    "  end\n"
    "  return answer('ok')\n"
    "end\n"
    "return redis.error_reply('ERR drover: unknown verb')\n";
