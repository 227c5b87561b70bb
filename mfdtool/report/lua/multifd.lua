-- SPDX-License-Identifier: GPL-2.0-or-later

-- Multifd channels

local function is_plausible_packet(c, position, length)
  if length < 36 then return false end
  local flags = u32(c, position + 8)
  if flags > 0x7f then return false end
  if has(flags, 0x40) then
    if length < 276 then return false end
    local name, padding = raw(c, position + 12, 256):match("^([^%z]*)(.*)$")
    return u32(c, position + 272) > 0 and printable(name) and not padding:find("[^%z]")
  end
  local alloc = u32(c, position + 12)
  if alloc ~= 0 and not is_page_count(alloc) then return false end
  return u32(c, position + 16) + u32(c, position + 32) <= alloc
end

-- Find a plausible packet from "start" on: its position; or nil and where to go on.
local function find_packet(c, start, final)
  local bytes = raw(c, start, c.limit - start)
  local at = 1
  while true do
    at = bytes:find(PACKET_START, at, true)
    if not at then break end
    local position = start + at - 1
    local length = c.limit - position
    if is_plausible_packet(c, position, length) then return position, position end
    if length < 276 and not final then return nil, position end
    at = at + 1
  end
  return nil, final and c.limit or math.max(start, c.limit - #PACKET_START + 1)
end

function MODES.lost_packet(c, s)
  local found, search = find_packet(c, s.search, c.final or not c.can_desegment)
  finish_lost(c, s, search)
  s.search = s.next
  if found then
    s.mode, s.reason = "multifd_packet", nil
  elseif s.next < c.limit then
    return s.next + 8 > c.limit and MORE or 276
  end
end

-- Whether a stream whose start was not captured begins with a packet, whose first eight bytes are
-- those of a handshake too: flags and counts lie where the UUID is.
local function is_packet(c, s, values)
  if (values.unused1 .. values.unused2):find("[^%z]") then return true end
  local flags, alloc = u32(c, s.next + 8), u32(c, s.next + 12)
  local is_sync = flags == 1 and alloc == 0 and u64(c, s.next + 16) == 0
  return is_sync or flags < 128 and is_page_count(alloc)
end

function MODES.multifd_init(c, s)
  local available = have(c, s)
  if available < 64 then
    if not c.final then return 64 end
    lose(c, s, "the handshake is not complete")
    return
  end
  local values = read(c, "MultiFDInit", s.next)
  if values.magic ~= K.MULTIFD_MAGIC or is_packet(c, s, values) then
    s.mode = "multifd_packet"
    return
  end
  c.join(s, values)
  local item = emit(c, s, "multifd.init", s.next, 64, nil, "id " .. values.id)
  show(c, item, "MultiFDInit", s.next)
  if values.version ~= K.MULTIFD_VERSION then break_rule(item, "MFD102") end
  if values.uuid ~= c.migration.uuid then
    break_rule(item, "MFD103", "another channel has " .. c.migration.uuid)
  end
  local first = c.migration.channels[s.channel]
  if first ~= c.conversation.number then
    break_rule(item, "MFD106", "TCP stream " .. tostring(first) .. " has this id too")
  end
  reserved(item, values)
  s.next, s.mode = s.next + 64, "multifd_packet"
end

function MODES.multifd_packet(c, s)
  if have(c, s) < 12 then
    if not c.final then return 12 end
    lose(c, s, "a packet header is missing")
    return
  end
  if u32(c, s.next) ~= K.MULTIFD_MAGIC then
    lose(c, s, "not a packet header", "MFD110")
  elseif u32(c, s.next + 4) ~= K.MULTIFD_VERSION then
    lose(c, s, "not a packet header", "MFD111")
  elseif has(u32(c, s.next + 8), 0x40) then
    s.mode = "device_state"
  else
    s.mode = "ram_packet"
  end
end

local function key_of(c, s)
  return c.conversation.number .. ":" .. s.next .. ":" .. c.pinfo.number
end

local function check_idx(c, s, item, values)
  local migration, idx = c.migration, values.idx
  local name = values.idstr .. " instance " .. values.instance_id
  local device = migration.devices[name]
  if not device then
    device = { seen = {}, count = 0, top = -1 }
    migration.devices[name] = device
  end
  local key, config = key_of(c, s), has(values.flags, 1)
  if idx > device.count + SPARSE_IDX then break_rule(item, "MFD213") end
  if device.seen[idx] == nil then
    device.seen[idx] = key
    device.count = device.count + 1
  elseif device.seen[idx] ~= key then
    break_rule(item, "MFD211", "idx " .. idx .. " was in frame " .. device.seen[idx]:match("%d+$"))
  end
  if config then
    if device.config == nil then
      device.config = { key = key, idx = idx }
    elseif device.config.key ~= key then
      break_rule(item, "MFD222", "one was in frame " .. device.config.key:match("%d+$"))
    end
    if device.top > idx then break_rule(item, "MFD223", "data packets go up to " .. device.top) end
  else
    device.top = math.max(device.top, idx)
    if device.config and idx > device.config.idx then
      break_rule(item, "MFD224", "the config has idx " .. device.config.idx)
    end
  end
end

local function check_device_packet(c, s, item, values)
  local size = values.next_packet_size
  if size == 0 then break_rule(item, "MFD201") end
  if size > BODY_LIMIT then break_rule(item, "MFD202") end
  if u8(c, s.next + 267) ~= 0 then break_rule(item, "MFD203") end
  local flags = values.packet_flags or values.flags
  if has(flags, 1) then break_rule(item, "MFD206") end
  if flags >= 128 then break_rule(item, "MFD114") end
end

local function check_vfio_packet(c, s, item, values)
  if values.version ~= 0 then
    break_rule(item, "MFD209", "version " .. values.version)
    return
  end
  if values.idx == K.VFIO_INVALID_IDX then
    break_rule(item, "MFD210")
    return
  end
  if values.flags > 1 then
    break_rule(item, "MFD215", string.format("flags 0x%x", values.flags))
  end
  if not has(values.flags, 1) and values.next_packet_size == 12 then break_rule(item, "MFD216") end
  check_idx(c, s, item, values)
end

function MODES.device_state(c, s)
  local available = have(c, s)
  if available < 276 then
    if not c.final then return 276 end
    lose(c, s, "a packet header is missing")
    return
  end
  local start, size = s.next, u32(c, s.next + 272)
  local whole = size >= 12
  if whole and available < 288 then
    if not c.final then return 288 end
    whole = false
  end
  local schema = whole and "DeviceStateHeader" or "MultiFDPacketDeviceState"
  local values = read(c, schema, start)
  local text, config = values.idstr .. " " .. size .. " bytes", false
  if whole then
    config = has(values.flags, 1)
    text = string.format("%s idx %d %s %d bytes", values.idstr, values.idx,
      config and "config" or "data", size - 12)
  end
  local item = emit(c, s, "multifd.device_state", start, 276 + size, whole and 288 or 276, text)
  show(c, item, schema, start)
  check_device_packet(c, s, item, values)
  if whole then
    generated(item, "device_state.is_config", config)
    generated(item, "device_state.data_length", long(size - 12))
    check_vfio_packet(c, s, item, values)
    if config and size < 28 then break_rule(item, "MFD230") end
  elseif size > 0 and size < 12 then
    break_rule(item, "MFD208")
  end
  s.next = start + (whole and 288 or 276)
  c.body_under = item
  begin_body(c, s, start + 276 + size, "multifd_packet",
    { what = text, config = config and size >= 28 })
  c.body_item = s.body
end

-- How many page offsets a RAM packet of this stream has: every packet with pages says it. A SYNC
-- packet says 0 and is filled with zeroes; there the next packet's magic tells.
local function learn_page_count(c, s, alloc)
  local usual = K.MULTIFD_PACKET_SIZE / K.X86_PAGE_SIZE
  if is_page_count(alloc) then
    s.page_count, s.guessed = alloc, false
    return
  end
  for _, count in ipairs(PAGE_COUNTS) do
    local stop = 320 + 8 * count
    local wanted = count == usual and stop or stop + #PACKET_START
    if have(c, s) < wanted then
      if not c.final then return wanted end
      break
    end
    local behind = raw(c, s.next + stop, math.min(#PACKET_START, have(c, s) - stop))
    if PACKET_START:sub(1, #behind) == behind then
      s.page_count = count
      return
    end
  end
  s.page_count, s.guessed = s.page_count or usual, true
end

local function ram_payload(s, flags, alloc, normal, zero, size)
  if alloc > s.page_count or normal > alloc or zero > alloc - normal then return 0 end
  if normal == 0 and zero == 0 then return 0 end
  if flags % 64 >= 2 then return size end
  return normal * K.MULTIFD_PACKET_SIZE / s.page_count
end

local function check_ram_packet(c, s, item, values)
  local flags, normal, zero = values.flags, values.normal_pages, values.zero_pages
  local alloc, size, method = values.pages_alloc, values.next_packet_size, values.flags % 64 >= 2
  if flags >= 128 then break_rule(item, "MFD114", string.format("flags 0x%x", flags)) end
  if alloc > s.page_count then
    break_rule(item, "MFD120")
  elseif normal > alloc then
    break_rule(item, "MFD121")
  elseif zero > alloc - normal then
    break_rule(item, "MFD122")
  elseif not method and size ~= normal * K.MULTIFD_PACKET_SIZE / s.page_count then
    break_rule(item, "MFD126")
  end
  if method and normal == 0 and zero > 0 and size > 0 then break_rule(item, "MFD128") end
  if (has(flags, 2) or has(flags, 4)) and size > K.MULTIFD_ZLIB_BUFFER_SIZE then
    break_rule(item, "MFD127")
  end
  local number = values.packet_num:tonumber()
  if s.packet_num and number <= s.packet_num then
    break_rule(item, "MFD129", "packet_num " .. number .. " comes after " .. s.packet_num)
  end
  s.packet_num = number
end

local function count_sync(c, s, item)
  s.syncs = (s.syncs or 0) + 1
  local migration = c.migration
  if c.fresh then migration.syncs[s.channel] = s.syncs end
  if migration.ended and migration.flushes > 0 and s.syncs > migration.flushes then
    break_rule(item, "MFD302")
  end
end

function MODES.ram_packet(c, s)
  local start, available = s.next, have(c, s)
  if available < 320 and not c.final then return 320 end
  if available < 36 then
    lose(c, s, "a packet header is missing")
    return
  end
  local schema = available >= 320 and "MultiFDPacketFixed" or "MultiFDPacketCounts"
  local values = read(c, schema, start)
  local alloc = values.pages_alloc
  if not s.page_count or (s.guessed and alloc > 0) then
    local wanted = learn_page_count(c, s, alloc)
    if wanted then return wanted end
  end
  local flags, normal, zero = values.flags, values.normal_pages, values.zero_pages
  local fixed = 320 + 8 * s.page_count
  local payload = ram_payload(s, flags, alloc, normal, zero, values.next_packet_size)
  local sync = has(flags, 1)
  local text = "packet " .. tostring(values.packet_num)
  if not sync or normal + zero > 0 then
    local block = values.ramblock or "?"
    text = string.format("%s, %s %d normal %d zero pages", text, block, normal, zero)
  end
  local shown = math.min(available, 320)
  local kind = sync and "multifd.sync" or "multifd.ram"
  local item = emit(c, s, kind, start, fixed + payload, shown, text)
  show(c, item, schema, start)
  generated(item, "multifd.data_length", long(payload))
  local method = flags % 64 - flags % 2
  if method > 0 then
    generated(item, "multifd.compression", flag_names(method, MULTIFD_FLAGS))
  end
  check_ram_packet(c, s, item, values)
  reserved(item, values)
  if sync then count_sync(c, s, item) end
  s.next = start + shown
  c.body_under = item
  begin_body(c, s, start + fixed + payload, "multifd_packet",
    { what = text, table_size = shown == 320 and 8 * s.page_count or nil })
  c.body_item = s.body
end
