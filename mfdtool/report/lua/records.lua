-- SPDX-License-Identifier: GPL-2.0-or-later

-- RAM records

local RECORD_KINDS = {}
for _, row in ipairs(RAM_FLAGS) do
  local name = row[1]
  if name ~= "FULL" and name ~= "CONTINUE" and name ~= "HOOK" then RECORD_KINDS[row[2]] = name end
end

local function record_kind(flags)
  return RECORD_KINDS[has(flags, 32) and flags - 32 or flags]
end

local function fail_record(c, s)
  if s.kind == "main" then
    s.mode, s.body_start = "opaque", s.next
    if c.limit > s.next then break_rule(c.tree:add(proto, visible(c, s.next, 8)), "MFD416") end
  else
    lose(c, s, "not a RAM record")
  end
end

-- Read the block list of a MEM_SIZE record: its entries and its end; or nil and what is needed.
local function read_blocks(c, s, at, total)
  local blocks = {}
  while total > 0 do
    if c.limit < at + 1 then return nil, at + 1 - s.next end
    local name = u8(c, at)
    local stop = at + 1 + name + 8
    if c.limit < stop + 8 then return nil, stop + 8 - s.next end
    local used = u64(c, stop - 8)
    local block = { at = at, name = name, used = used }
    if s.odd_blocks == "x-ignore-shared" then
      block.address, stop = stop, stop + 8
    elseif not s.odd_blocks then
      local word = u64(c, stop)
      local power = math.log(word) / math.log(2)
      if word >= 8192 and word < 2 ^ 56 and 2 ^ math.floor(power + 0.5) == word then
        block.page_size, stop = stop, stop + 8
      end
    end
    if used > total or #blocks == BLOCK_LIMIT then return nil, nil end
    blocks[#blocks + 1] = block
    total, at = total - used, stop
  end
  return blocks, at
end

local function show_blocks(c, item, blocks)
  for _, block in ipairs(blocks) do
    local name = escape(raw(c, block.at + 1, block.name))
    local length = 1 + block.name + 8
    local sub = item:add(F["ram.blocks"], range(c, block.at, length), name)
    sub:add(F["ram.blocks.idstr"], range(c, block.at, 1 + block.name), name)
    sub:add(F["ram.blocks.used_length"], range(c, block.at + 1 + block.name, 8))
    if block.page_size then sub:add(F["ram.blocks.page_size"], range(c, block.page_size, 8)) end
    if block.address then sub:add(F["ram.blocks.address"], range(c, block.address, 8)) end
  end
end

-- How many bytes of a page follow; nil and what is needed as long as nobody knows.
local function page_size(c, s, at)
  if s.page_size then return s.page_size end
  for _, size in ipairs({ 4096, 65536, 16384, 8192, 32768, 2048, 1024 }) do
    local wanted = at + size + 8
    if c.limit < wanted then
      if not c.final then return nil, wanted - s.next end
    elseif record_kind(u32(c, at + size + 4) % RAM_MASK) then
      s.page_size = size
      return size
    end
  end
  s.page_size = K.X86_PAGE_SIZE
  return s.page_size
end

-- What follows a record's block id: the end of its header and the size of its data; or nil and
-- what is needed; or nil, nil if it cannot be one.
local function record_data(c, s, kind, at)
  if kind == "ZERO" then return at + 1, 0 end
  if kind == "PAGE" then
    local size, wanted = page_size(c, s, at)
    if not size then return nil, wanted end
    return at, size
  end
  local header = kind == "XBZRLE" and 3 or 4
  if c.limit < at + header then return nil, at + header - s.next end
  return at + header, kind == "XBZRLE" and u16(c, at + 1) or u32(c, at)
end

-- What follows a record's first word: the end of its header, the size of its data, its block and
-- the blocks that it lists; or nil and what is needed; or nil, nil if it cannot be followed.
local function read_record(c, s, kind, flags)
  local at, block = s.next + 8, s.block or ""
  if kind == "EOS" or kind == "MULTIFD_FLUSH" then return at, 0 end
  if kind == "MEM_SIZE" then
    local total = u32(c, s.next) * 4294967296 + u32(c, s.next + 4) - flags
    local blocks, stop = read_blocks(c, s, at, total)
    if not blocks then return nil, stop end
    return stop, 0, nil, blocks
  end
  if not has(flags, 32) then
    local wanted = have(c, s) < 9 and 9 or 9 + u8(c, at)
    if have(c, s) < wanted then return nil, wanted end
    block, at = escape(raw(c, at + 1, wanted - 9)), s.next + wanted
  end
  local stop, size = record_data(c, s, kind, at)
  if not stop then return nil, size end
  if c.limit < stop then return nil, stop - s.next end
  return stop, size, block
end

function MODES.ram_record(c, s)
  local start = s.next
  if have(c, s) < 8 then
    if not c.final then return 8 end
    fail_record(c, s)
    return
  end
  local low = u32(c, start + 4)
  local flags = low % RAM_MASK
  local kind = record_kind(flags)
  local stop, size, block, blocks
  if kind then stop, size, block, blocks = read_record(c, s, kind, flags) end
  if not stop then
    if size and not c.final then return size end
    fail_record(c, s)
    return
  end
  local item = emit(c, s, "ram.record", start, stop - start + size, stop - start, kind)
  if s.section then show_section(item, "ram", s.section, true) end
  local word = range(c, start, 8)
  local field = item:add(F["ram.flags"], word, long(flags))
  for _, bit in ipairs(BITS["ram.flags"]) do field:add(F[bit], word) end
  item:add(F["ram.addr"], word, UInt64.new(low - flags, u32(c, start)))
  generated(item, "ram.record_type", kind)
  if block then
    s.block = block
    if block ~= "" then generated(item, "ram.ramblock", block) end
  end
  if blocks then show_blocks(c, item, blocks) end
  if kind == "ZERO" then show(c, item, "ZeroFill", stop - 1) end
  generated(item, "ram.data_length", long(size))
  if kind == "MULTIFD_FLUSH" and c.fresh then c.migration.flushes = c.migration.flushes + 1 end
  local behind = s.kind == "main" and "footer" or "lost"
  s.next = stop
  c.body_under = item
  begin_body(c, s, stop + size, kind == "EOS" and behind or "ram_record",
    { what = kind .. " record" })
  c.body_item = s.body
end

-- VFIO records

-- How long a config in the main stream is: END_OF_STATE and the section's footer end it. 0 if the
-- section ends without: to wait for more would be to wait for the end of the capture.
local function config_size(c, s)
  local at, footer = s.next + 8, footer_of(s.section.id)
  local bytes = raw(c, at, c.limit - at)
  local found = bytes:find(END_OF_STATE .. footer, 1, true)
  if found then return found - 1 end
  if find_footer(c, s, footer, at, c.final) then return 0 end
  if #bytes < CONFIG_LIMIT and not c.final then return nil end
  return 0
end

function MODES.vfio_marker(c, s)
  local start, available = s.next, have(c, s)
  if available < 8 then
    if not c.final then return 8 end
    s.mode, s.body_start = "opaque", start
    return
  end
  local high, low = u32(c, start), u32(c, start + 4)
  local name = high == 0xffffffff and MARKERS[low]
  local header, size = 8, 0
  if name == "DEV_DATA_STATE" then
    header = 16
    if available < 16 then
      if not c.final then return 16 end
      s.mode, s.body_start = "opaque", start
      return
    end
    size = u64(c, start + 8)
  elseif name == "DEV_CONFIG_STATE" then
    size = config_size(c, s)
    if not size then return MORE end
  elseif not name and (high ~= 0xffffffff or math.floor(low / 65536) ~= 0xef10) then
    s.mode, s.body_start = "opaque", start
    if s.trusted then break_rule(c.tree:add(proto, range(c, start, 8)), "MFD504") end
    return
  end
  local text = string.format("%s %s", s.section.idstr, name or string.format("0x%x", low))
  local item = emit(c, s, "vfio.marker", start, header + size, header, text)
  show_section(item, "vfio", s.section, true)
  show(c, item, header == 16 and "DeviceData" or "Marker", start)
  if name then generated(item, "vfio.marker", name) else break_rule(item, "MFD504") end
  item:add(F["vfio.data_length"], header == 16 and range(c, start + 8, 8):uint64() or long(size))
    :set_generated()
  if s.after_setup and name ~= "END_OF_STATE" then break_rule(item, "MFD502") end
  s.after_setup = name == "DEV_SETUP_STATE"
  s.next = start + header
  local ends = name == "END_OF_STATE" or name == "DEV_INIT_DATA_SENT"
    or name == "DEV_CONFIG_LOAD_READY"
  c.body_under = item
  begin_body(c, s, start + header + size, ends and "footer" or "vfio_marker", { what = text })
  c.body_item = s.body
end

-- Return path

function MODES.return_path(c, s)
  local start = s.next
  if have(c, s) < 4 then
    if not c.final then return 4 end
    lose(c, s, "no whole message")
    return
  end
  local number, length = u16(c, start), u16(c, start + 2)
  local row = MESSAGES[number]
  if not row or length > K.RETURN_PATH_MAX_LENGTH then
    lose(c, s, "not a return path message")
    return
  end
  local bitmap = row[1] == "RECV_BITMAP" and 8 or 0
  if have(c, s) < 4 + length + bitmap then
    if not c.final then return 4 + length + bitmap end
    lose(c, s, "no whole message")
    return
  end
  local stop = start + 4 + length
  local total = 4 + length
  if bitmap > 0 then total = total + 8 + u64(c, stop) + 8 end
  local item = emit(c, s, "return_path.message", start, total, 4 + length, row[1])
  show(c, item, "ReturnPathMessage", start)
  generated(item, "return_path.type", row[1])
  if row[3] and length > 0 then show_payload(c, s, item, row[3], start + 4, length) end
  s.next = stop + bitmap
  c.body_under = item
  begin_body(c, s, start + total, "return_path", { what = row[1] })
  c.body_item = s.body
end
