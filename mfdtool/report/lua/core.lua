-- SPDX-License-Identifier: GPL-2.0-or-later
-- @SIGNATURE@
--
-- Use it:    tshark -X lua_script:qemu_migration.lua -r CAPTURE
-- Install:   mfdtool wireshark --install
--
-- How it works. Every direction of a TCP connection is a stream with a cursor: the position of the
-- next thing to read, and what that must be (its "mode"). A mode's function looks at the cursor
-- and moves it, or returns how many bytes it needs there; then Wireshark is asked to put segments
-- together. A packet's header is shown where it is complete. Its payload, whose length the header
-- tells, is put together after it; if bytes of it were not captured, the cursor moves on all the
-- same, since it counts by TCP sequence numbers.
--
-- Wireshark may dissect a frame many times. The state at the beginning of each call is kept, and
-- later calls work on a copy of it, so that they show the same.

--@TABLES@

local MORE = -1
local BODY_LIMIT = 64 * 1024 * 1024     -- longest payload that is put together
local CONFIG_LIMIT = 256 * 1024         -- longest config of a device in the main stream
local OPAQUE_LIMIT = 64 * 1024          -- longest body of unknown length that is shown in one piece
local BLOCK_LIMIT = 4096                -- most blocks of a MEM_SIZE record
local SUMMARY_LIMIT = 6                 -- packets named in the Info column
local SPARSE_IDX = 65536                -- an idx so far above the number of packets is a mistake
local FILE_START = "QEVM\0\0\0"
local PACKET_START = "\x11\x22\x33\x44\0\0\0\1"
local END_OF_STATE = "\xff\xff\xff\xff\xef\x10\0\1"
local IDLE_LIMIT = 8                    -- changes of mode without moving the cursor
local RAM_MASK = 1024                   -- flags of a RAM record lie below

local proto = Proto(NAME, "QEMU Migration")
local F, E = {}, {}

do
  local list, experts = {}, {}
  for _, row in ipairs(FIELDS) do
    local key, kind, shown, text, width, mask = row[1], row[2], row[3], row[4], row[5], row[6]
    local name, label = NAME .. "." .. key, key:match("[^.]+$")
    if kind == "bool" then
      F[key] = ProtoField.bool(name, label, width or base.NONE, nil, mask, text)
    elseif kind:match("^uint") then
      F[key] = ProtoField[kind](name, label, base[shown], VALUES[key], nil, text)
    elseif kind == "framenum" then
      F[key] = ProtoField.framenum(name, label, base.NONE, nil, nil, text)
    elseif kind == "bytes" then
      F[key] = ProtoField.bytes(name, label, base.NONE, text)
    else
      F[key] = ProtoField.string(name, label, base.ASCII, text)
    end
    list[#list + 1] = F[key]
  end
  local severities = {
    error = expert.severity.ERROR, warning = expert.severity.WARN, note = expert.severity.NOTE,
  }
  for id, row in pairs(RULES) do
    local text = id .. " " .. row[1] .. ": " .. row[3]
    E[id] = ProtoExpert.new(
      NAME .. ".rule." .. id:lower(), text, expert.group.PROTOCOL, severities[row[2]])
    experts[#experts + 1] = E[id]
  end
  proto.fields = list
  proto.experts = experts
end

proto.prefs.ports = Pref.range(
  "TCP ports", PORTS, "Take these to be migrations whatever they begin with", 65535)
proto.prefs.reassemble = Pref.bool(
  "Put payloads together", true, "Show the whole payload of packets that span segments")

local tcp_stream = Field.new("tcp.stream")
local tcp_seq = Field.new("tcp.seq")
local tcp_seq_raw = Field.new("tcp.seq_raw")
local tcp_len = Field.new("tcp.len")

local conversations = {}                -- by number of the TCP stream
local servers = {}                      -- the latest migration to each server
local migrations = 0
local info_frame = 0                    -- the frame whose Info column was begun
local info_count = 0

function proto.init()
  conversations, servers, migrations, info_frame = {}, {}, 0, 0
end

-- Small things

local function last(extractor)
  local values = { extractor() }
  return values[#values] and values[#values].value
end

local function has(flags, flag)
  return math.floor(flags / flag) % 2 == 1
end

local function copy(state)
  local result = {}
  for key, value in pairs(state) do result[key] = value end
  return result
end

local function escape(text)
  return (text:gsub("[^\x20-\x5b\x5d-\x7e]", function(byte)
    return byte == "\\" and "\\\\" or string.format("\\x%02x", byte:byte())
  end))
end

local function until_nul(text)
  return escape(text:match("^[^%z]*"))
end

local function printable(text)
  return #text > 0 and not text:find("[^\x20-\x7e]")
end

local function flag_names(value, flags)
  local names, rest = {}, value
  for _, row in ipairs(flags) do
    if has(value, row[2]) then
      names[#names + 1] = row[1]
      rest = rest - row[2]
    end
  end
  if rest > 0 or #names == 0 then
    names[#names + 1] = rest > 0 and string.format("0x%x", rest) or "0"
  end
  return table.concat(names, "|")
end

local function is_page_count(count)
  for _, each in ipairs(PAGE_COUNTS) do
    if each == count then return true end
  end
  return false
end

-- Take the page size that a stream tells, if a target can have it.
local function learn_page_size(s, size)
  if size > 0 and is_page_count(K.MULTIFD_PACKET_SIZE / size) then s.page_size = size end
end

-- Where bytes are. c is one call of the dissector, s the state of its stream.

local function have(c, s)
  return c.limit - s.next
end

local function range(c, position, length)
  return c.tvb:range(position - c.base, length)
end

local function u8(c, position) return range(c, position, 1):uint() end
local function u16(c, position) return range(c, position, 2):uint() end
local function u32(c, position) return range(c, position, 4):uint() end

local function u64(c, position)         -- exact up to 2^53, which is enough for lengths
  return u32(c, position) * 4294967296 + u32(c, position + 4)
end

local function raw(c, position, length)
  if length <= 0 then return "" end
  return c.tvb:raw(position - c.base, length)
end

-- What is shown

local function generated(item, key, value)
  item:add(F[key], value):set_generated()
end

-- A number for a field of 64 bits; what does not fit is shown as the most that does.
local function long(number)
  if number >= 18446744073709551616 then return UInt64.new(4294967295, 4294967295) end
  return UInt64.new(number % 4294967296, math.floor(number / 4294967296))
end

local function summarise(c, s, text)
  if info_frame ~= c.pinfo.number then
    info_frame, info_count = c.pinfo.number, 0
    c.pinfo.cols.protocol = "QEMU-MIG"
    c.pinfo.cols.info = ""
  end
  info_count = info_count + 1
  if info_count == 1 then
    c.pinfo.cols.info = s.channel .. ": " .. text
  elseif info_count <= SUMMARY_LIMIT then
    c.pinfo.cols.info:append("; " .. text)
  elseif info_count == SUMMARY_LIMIT + 1 then
    c.pinfo.cols.info:append("; ...")
  end
end

-- A range that is in this call: as much as there is of "length" bytes from "start" on.
local function visible(c, start, length)
  local from = math.min(math.max(start, c.base), c.limit)
  return range(c, from, math.max(math.min(start + length, c.limit) - from, 0))
end

-- Show a frame: a packet, section header, marker, record or message. "shown" are the bytes of it
-- that its item is marked with; the others are shown by the item of the payload.
local function emit(c, s, kind, start, length, shown, text)
  local item = c.tree:add(proto, visible(c, start, shown or length))
  item:append_text(", " .. s.channel .. " " .. kind .. (text ~= "" and ", " .. text or ""))
  generated(item, "kind", kind)
  generated(item, "migration", c.migration.number)
  generated(item, "channel", s.channel)
  generated(item, "number", s.number)
  generated(item, "offset", long(start))
  generated(item, "length", long(length))
  s.number = s.number + 1
  summarise(c, s, (kind:match("[^.]+$")) .. (text ~= "" and " " .. text or ""))
  return item
end

local function break_rule(item, id, text)
  local rule = RULES[id]
  local message = id .. " " .. rule[1] .. ": " .. (text or rule[3])
  item:add_proto_expert_info(E[id], message)
end

local READERS = {
  u8 = function(bytes) return bytes:uint() end,
  be16 = function(bytes) return bytes:uint() end,
  be32 = function(bytes) return bytes:uint() end,
  be64 = function(bytes) return bytes:uint64() end,
  bytes = function(bytes) return bytes:raw() end,
  name = function(bytes) return until_nul(bytes:raw()) end,
  block = function(bytes) return until_nul(bytes:raw(0, bytes:len() - 1)) end,
  uuid = function(bytes)
    local digits = bytes:bytes():tohex(true)
    return table.concat({
      digits:sub(1, 8), digits:sub(9, 12), digits:sub(13, 16), digits:sub(17, 20), digits:sub(21),
    }, "-")
  end,
}

-- Read a message by its schema, all of which is there; give its values and its end.
local function read(c, schema, position)
  local values = {}
  for _, step in ipairs(SCHEMAS[schema]) do
    local width = step[4]
    if step[2] == "counted" then
      local length = u8(c, position)
      values[step[1]] = escape(raw(c, position + 1, length))
      position = position + 1 + length
    else
      values[step[1]] = READERS[step[2]](range(c, position, width))
      position = position + width
    end
  end
  return values, position
end

-- Show a message's fields under an item.
local function show(c, item, schema, position)
  for _, step in ipairs(SCHEMAS[schema]) do
    local reader, key, width = step[2], step[3], step[4]
    if reader == "counted" then
      local length = u8(c, position)
      item:add(F[key], range(c, position, 1 + length), escape(raw(c, position + 1, length)))
      position = position + 1 + length
    else
      local bytes = range(c, position, width)
      if reader == "name" or reader == "block" or reader == "uuid" then
        local text = READERS[reader](bytes)
        if text ~= "" or reader == "name" then item:add(F[key], bytes, text) end
      else
        local field = item:add(F[key], bytes)
        for _, bit in ipairs(BITS[key] or {}) do field:add(F[bit], bytes) end
      end
      position = position + width
    end
  end
end

local function reserved(item, values)
  for _, name in ipairs({ "unused1", "unused2", "unused64" }) do
    if values[name] and values[name]:find("[^%z]") then break_rule(item, "MFD115", name) end
  end
  if values.unused32 and values.unused32 ~= 0 then break_rule(item, "MFD115", "unused32") end
end

-- Bytes that are no packet

local function undecoded(c, s, start, stop, reason)
  if stop <= start then return end
  -- What goes on in a later call is still the same frame.
  if s.lost_stop == start then s.number = s.number - 1 end
  s.lost_stop = stop
  local item = emit(c, s, "undecoded", start, stop - start, nil, reason)
  generated(item, "reason", reason)
  return item
end

-- Pass over the byte at the cursor and look for the next thing that makes sense.
local function lose(c, s, reason, rule)
  local searching = s.kind == "multifd" and "lost_packet" or "lost_element"
  if s.kind ~= "multifd" and s.kind ~= "main" then searching = "lost" end
  s.mode, s.reason = searching, reason
  s.search = math.min(s.next + 1, c.limit)
  s.rule = rule
  c.migration.damaged = true
end

local function finish_lost(c, s, stop)
  local item = undecoded(c, s, s.next, stop, s.reason or "not decoded")
  if item and s.rule then
    break_rule(item, s.rule)
    s.rule = nil
  end
  s.next = stop
end

-- Payload

-- Continue behind the header with a payload up to "stop"; then in mode "after".
local function begin_body(c, s, stop, after, details)
  if stop <= s.next then
    s.mode = after
    return
  end
  local body = details or {}
  body.start, body.stop, body.after = s.next, stop, after
  body.frame, body.channel = c.pinfo.number, s.channel
  s.body, s.mode = body, "body"
end

local function check_config(c, item, body)
  local start, stop = body.data or body.start, body.stop
  local bytes = raw(c, start, stop - start)
  local first = END_OF_STATE:sub(1, 7) .. "\2"
  if bytes:sub(1, 8) ~= first then
    break_rule(item, "MFD230")
  elseif bytes:sub(-8) ~= END_OF_STATE or #bytes < 16 then
    break_rule(item, bytes:find(END_OF_STATE, 9, true) and "MFD233" or "MFD232")
  end
end

local function show_body(c, s, body)
  local length = body.stop - body.start
  local item = c.body_item == body and c.body_under
  if not item then
    item = c.tree:add(proto, range(c, body.start, length))
    item:append_text(
      string.format(", %s payload of %s, %.0f bytes", body.channel, body.what, length))
    item:add(F.header_in, body.frame):set_generated()
    summarise(c, s, "payload of " .. body.what)
  end
  if body.table_size then
    item:add(F["multifd.offset"], range(c, body.start, body.table_size))
  end
  local start = body.start + (body.table_size or 0)
  if body.stop > start then item:add(F.payload, range(c, start, body.stop - start)) end
  if body.config then check_config(c, item, body) end
end

local MODES = {}

function MODES.body(c, s)
  local body = s.body
  local stop = math.min(c.limit, body.stop)
  if s.next == body.start and stop == body.stop then
    show_body(c, s, body)
  else
    local length = body.stop - body.start
    local wanted = s.next == body.start and proto.prefs.reassemble and length <= BODY_LIMIT
    if wanted and c.can_desegment and not c.final then return length end
    if stop > s.next then
      local item = c.tree:add(proto, range(c, s.next, stop - s.next))
      local text = string.format("%s bytes %.0f to %.0f of %.0f of the payload of %s", body.channel,
        s.next - body.start, stop - body.start - 1, length, body.what)
      item:append_text(", " .. text)
      item:add(F.header_in, body.frame):set_generated()
      item:add(F.payload, range(c, s.next, stop - s.next))
      summarise(c, s, "payload of " .. body.what)
    end
  end
  s.next = stop
  if stop == body.stop then s.mode = body.after end
end
