-- SPDX-License-Identifier: GPL-2.0-or-later

-- Streams whose beginning was not captured, and others on a port that was named.

function MODES.unknown(c, s)
  local packet = find_packet(c, s.next, true)
  local footer = string.char(SECTION.FOOTER, 0, 0)
  local element = packet == nil and find_footer(c, s, footer, s.next, true)
  if not packet and not element then
    c.ignored = true
    s.next = c.limit
    return
  end
  s.kind, s.channel = packet and "multifd" or "main", packet and "multifd-?" or "main"
  c.join(s, nil)
  s.reason = "the stream's start is not captured"
  finish_lost(c, s, packet or element)
  s.mode = packet and "multifd_packet" or "element"
end

-- Which migration a channel belongs to: the latest to its server that has no such channel yet.
local function migration_for(conversation, channel, uuid)
  local server = conversation.server
  local migration = servers[server]
  local taken = migration and migration.channels[channel]
  local is_new = not migration or migration.ended
  if taken and taken ~= conversation.number then
    is_new = is_new or migration.channels.main ~= nil
  end
  if is_new then
    migration = {
      number = migrations, channels = {}, devices = {}, syncs = {}, flushes = 0, uuid = uuid,
    }
    migrations = migrations + 1
    servers[server] = migration
  end
  migration.uuid = migration.uuid or uuid
  migration.channels[channel] = migration.channels[channel] or conversation.number
  return migration
end

-- Whether a stream begins as a postcopy preempt channel: with a page, and the name of its block.
local function is_first_page(c)
  local size = c.limit - c.base
  if size < 10 or u32(c, c.base) > 0xffff then return false end
  local low, length = u32(c, c.base + 4), u8(c, c.base + 8)
  local kind = low % 4096
  if kind ~= 2 and kind ~= 8 or size < 9 + length then return false end
  return printable(raw(c, c.base + 9, length))
end

local function classify(c, s, conversation)
  if conversation.kind and conversation.opener ~= c.stream then
    if conversation.kind == "main" then
      s.kind, s.channel, s.mode = "return_path", "return-path", "return_path"
    else
      s.kind, s.channel, s.mode = "unknown", "unknown", "lost"
    end
    return
  end
  local word = c.limit - c.base >= 4 and u32(c, c.base) or 0
  if word == K.QEMU_VM_FILE_MAGIC then
    s.kind, s.channel, s.mode = "main", "main", "main_header"
  elseif word == K.MULTIFD_MAGIC then
    s.kind, s.channel, s.mode = "multifd", "multifd-?", "multifd_init"
  elseif math.floor(word / 65536) == 0x1603 then
    s.kind, s.channel, s.mode = "tls", "tls", "lost"
  elseif is_first_page(c) then
    s.kind, s.channel, s.mode = "preempt", "preempt", "ram_record"
  else
    s.mode = "unknown"
  end
end

-- Whether bytes could be the first ones of a channel, too few to tell.
local function could_begin(bytes)
  if #bytes == 0 or #bytes >= 8 then return false end
  return bytes == FILE_START:sub(1, #bytes) or bytes == PACKET_START:sub(1, #bytes)
end

-- Tell what a stream is by its first bytes, if there are enough of them or no more can be had.
local function begin(c, s, conversation)
  if c.can_desegment and not conversation.kind and could_begin(c.tvb:raw()) then return end
  classify(c, s, conversation)
  if s.kind == "return_path" then
    if c.fresh then c.stream.migration = conversation.migration end
    c.migration = c.stream.migration or c.migration
  end
  if s.kind == "preempt" then c.join(s, nil) end
end

function MODES.begin()
  return MORE
end

-- Calls

local function end_of(pinfo)
  return tostring(pinfo.src) .. ":" .. pinfo.src_port, tostring(pinfo.dst) .. ":" .. pinfo.dst_port
end

local function conversation_of(pinfo)
  local number = last(tcp_stream)
  local conversation = conversations[number]
  if not conversation then
    conversation = { number = number, streams = {} }
    conversations[number] = conversation
  end
  local source, target = end_of(pinfo)
  local stream = conversation.streams[source]
  if not stream then
    stream = { calls = {}, asked = {}, source = source, target = target }
    conversation.streams[source] = stream
  end
  return conversation, stream
end

-- Where in its stream the bytes of a call begin. They normally end with the segment. Bytes that
-- were put together of several segments are a buffer of their own: they begin where more was asked
-- for, or where that call began, and end where was asked for, or behind it if segments came out of
-- order: then their end does not tell where they begin.
local function place(stream, state, tvb)
  local sequence, length, size = last(tcp_seq), last(tcp_len), tvb:reported_len()
  local stop = sequence + length
  if not stream.base then
    -- Wireshark counts from the first byte, be it captured or not, unless it is told not to.
    local first = tvb:offset() == 0 and sequence or stop - size
    stream.base = last(tcp_seq_raw) ~= sequence and 1 or first
  end
  stop = stop - stream.base
  -- Sequence numbers wrap: the position is the one nearest to the cursor.
  local near = state and state.next or 0
  stop = stop + math.floor((near - stop) / 4294967296 + 0.5) * 4294967296
  stream.segment = stop - length
  if tvb:offset() ~= 0 then return stop - size end
  if not state then return 0 end
  local wanted = state.wanted
  local start = (wanted and wanted ~= MORE and wanted or stop) - size
  if not wanted or start == state.next then return state.next end
  return state.asked or state.next
end

-- Bytes between the cursor and a call are missing. If more was asked for, some of them may have
-- been captured, but they could not be put together.
local function pass_gap(c, s)
  local count = c.base - s.next
  local item = c.tree:add(proto, range(c, c.base, 0))
  local why = s.wanted and "are not whole" or "are not captured"
  local text = count .. " bytes before this " .. why
  item:append_text(", " .. s.channel .. ": " .. text)
  if s.wanted then
    generated(item, "reason", text)
  else
    generated(item, "missing", long(count))
  end
  break_rule(item, "MFD602", text)
  local inside = s.mode == "body" and c.base <= s.body.stop
  s.next = c.base
  if inside then
    if s.next == s.body.stop then s.mode = s.body.after end
  elseif s.mode == "opaque" then
    s.search = nil
  elseif s.mode == "multifd_init" then
    s.mode = "lost_packet"
    s.search, s.reason = s.next, "a packet header is missing"
  else
    lose(c, s, s.kind == "main" and "a section header is missing" or "a packet header is missing")
    s.search = s.next
  end
end

-- Let the mode's functions move the cursor to the end of the call's bytes. A later call may have
-- fewer bytes than the first one: Wireshark leaves away those behind what was shown. If they were
-- looked at to tell where it ends, that is known by now: it ends with the call's bytes.
local function run(c, s)
  local idle = 0
  while s.next < c.limit do
    local next = s.next
    local needed = MODES[s.mode](c, s)
    if needed and c.can_desegment and c.limit ~= c.reached then
      -- Only of a payload the whole length is known. To ask for a part of a header, and then for
      -- more, breaks what Wireshark puts together (packet-tcp.c:tcp_dissect_pdus).
      local exact = s.mode == "body"
      c.pinfo.desegment_offset = s.next - c.base
      c.pinfo.desegment_len = exact and needed - (c.limit - s.next) or DESEGMENT_ONE_MORE_SEGMENT
      s.wanted = exact and s.next + needed or MORE
      -- If nothing of the last segment was shown, all is put together again from where this call
      -- begins (packet-tcp.c:desegment_tcp).
      s.asked = c.tvb:offset() == 0 and s.next <= c.stream.segment and c.base or nil
      if c.fresh then c.stream.asked[s.next] = copy(s) end
      return
    end
    -- If more will not come in one piece, what is there must do.
    c.final = needed ~= nil
    idle = s.next == next and idle + 1 or 0
    if idle > IDLE_LIMIT then
      lose(c, s, "not decoded")
      s.next, idle = s.next + 1, 0
    end
  end
  s.wanted = nil
end

local function dissect(tvb, pinfo, tree)
  if pinfo.in_error_pkt or tvb:captured_len() == 0 then return 0 end
  local conversation, stream = conversation_of(pinfo)
  local key = pinfo.number .. ":" .. tvb:offset()
  local call = stream.calls[key]
  local fresh = call == nil or not pinfo.visited
  local s = stream.state
  if fresh then
    call = { base = place(stream, s, tvb), state = s and copy(s), learned = {} }
    stream.calls[key] = stream.calls[key] or call
  else
    -- What was put together bit by bit comes in one piece now.
    s = copy(tvb:offset() == 0 and stream.asked[call.base] or call.state)
    for key, value in pairs(call.learned) do
      if s[key] == nil then s[key] = value end
    end
  end
  local c = {
    tvb = tvb, pinfo = pinfo, tree = tree, fresh = fresh,
    conversation = conversation, stream = stream,
    base = call.base, limit = call.base + tvb:captured_len(),
    cut = tvb:captured_len() < tvb:reported_len(), final = false,
    reached = not fresh and call.reached or nil,
  }
  -- A frame that is new in the second pass was not looked at in the first: nor is it put together.
  c.can_desegment = pinfo.can_desegment > 0 and not c.cut and not (fresh and pinfo.visited)
  c.migration = stream.migration or { number = 0, channels = {}, devices = {}, syncs = {},
    flushes = 0 }
  function c.join(state, init)
    if init then state.channel = "multifd-" .. init.id end
    if fresh and not stream.migration then
      conversation.kind, conversation.server = state.kind, stream.target
      conversation.opener = stream
      stream.migration = migration_for(conversation, state.channel, init and init.uuid)
      conversation.migration = stream.migration
    end
    c.migration = stream.migration or c.migration
  end
  if not s then
    s = {
      next = c.base, number = 0, sections = {}, is_record = record_kind, channel = "unknown",
      mode = "begin",
    }
    stream.state = s
  end
  if s.mode == "begin" then
    begin(c, s, conversation)
    call.state = copy(s)
  end
  if s.kind == "tls" then
    local done = Dissector.get("tls"):call(tvb, pinfo, tree)
    pinfo.cols.info:append(" [migration over TLS: encrypted]")
    return done
  end
  if s.mode == "unknown" then s.next = math.max(s.next, c.base) end
  if c.base > s.next then pass_gap(c, s) end
  if s.next >= c.limit and c.base < s.next then
    tree:add(proto, tvb()):append_text(", " .. s.channel .. ": seen before")
    return tvb:captured_len()
  end
  run(c, s)
  if fresh then
    call.reached = s.next
    call.learned = { page_size = s.page_size, page_count = s.page_count, guessed = s.guessed }
  end
  if c.ignored then return 0 end
  return tvb:captured_len()
end

function proto.dissector(tvb, pinfo, tree)
  return dissect(tvb, pinfo, tree)
end

-- By the magic that a channel begins with; a preempt channel has none, but it goes where the main
-- channel goes

local function is_beginning(tvb, pinfo)
  local size = tvb:captured_len()
  if size < 8 then
    -- Where a connection begins, or with a whole magic: a stray byte of others' is left alone.
    return pinfo.can_desegment > 0 and size == tvb:reported_len() and could_begin(tvb:raw())
      and (size >= 4 or last(tcp_seq) == 1)
  end
  local magic, version = tvb(0, 4):uint(), tvb(4, 4):uint()
  return (magic == K.QEMU_VM_FILE_MAGIC or magic == K.MULTIFD_MAGIC) and version <= 255
end

local function is_preempt(tvb, pinfo)
  local _, target = end_of(pinfo)
  return servers[target] ~= nil and last(tcp_seq) == 1
    and is_first_page({ tvb = tvb, base = 0, limit = tvb:captured_len() })
end

local function heuristic(tvb, pinfo, tree)
  if not is_beginning(tvb, pinfo) and not is_preempt(tvb, pinfo) then return false end
  pinfo.conversation = proto
  dissect(tvb, pinfo, tree)
  return true
end

proto:register_heuristic("tcp", heuristic)

local registered = ""
local function register()
  local ports = DissectorTable.get("tcp.port")
  if registered ~= "" then ports:remove(registered, proto) end
  registered = proto.prefs.ports or ""
  if registered ~= "" then ports:add(registered, proto) end
end
proto.prefs_changed = register
register()
