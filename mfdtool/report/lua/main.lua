-- SPDX-License-Identifier: GPL-2.0-or-later

-- Main stream

-- Whether an element could begin at a position; nil if more must be seen.
local function looks_like_element(c, s, position, final)
  local available = c.limit - position
  if available <= 0 then return final and true or nil end
  local kind = u8(c, position)
  local wanted
  if kind == SECTION.EOF then
    if available == 1 then return final and true or nil end
    return u8(c, position + 1) == SECTION.VMDESCRIPTION
  elseif kind == SECTION.START or kind == SECTION.FULL then
    wanted = available >= 6 and 6 + u8(c, position + 5) or 6
  elseif kind == SECTION.PART or kind == SECTION.END or kind == SECTION.COMMAND then
    wanted = 5
  else
    return false
  end
  if available < wanted then
    if final then return false end
    return nil
  end
  if kind == SECTION.COMMAND then
    local command = COMMANDS[u16(c, position + 1)]
    return command ~= nil and (not command[2] or command[2] == u16(c, position + 3))
  end
  local id = u32(c, position + 1)
  if kind == SECTION.PART or kind == SECTION.END then return s.sections[id] ~= nil end
  local name = raw(c, position + 6, wanted - 6)
  return printable(name) and id < SECTION_ID_LIMIT
end

-- Find a footer with a plausible element behind it: its position; or nil and where to go on.
local function find_footer(c, s, pattern, start, final)
  local bytes = raw(c, start, c.limit - start)
  local at = 1
  while true do
    at = bytes:find(pattern, at, true)
    if not at then break end
    local position = start + at - 1
    local verdict = looks_like_element(c, s, position + 5, final)
    if verdict then return position, position end
    if verdict == nil then return nil, position end
    at = at + 1
  end
  if final then return nil, c.limit end
  for count = math.min(#pattern - 1, #bytes), 1, -1 do
    if bytes:sub(-count) == pattern:sub(1, count) then return nil, c.limit - count end
  end
  return nil, c.limit
end

local function footer_of(id)
  return string.char(SECTION.FOOTER, math.floor(id / 16777216), math.floor(id / 65536) % 256,
    math.floor(id / 256) % 256, id % 256)
end

function MODES.lost_element(c, s)
  local pattern = string.char(SECTION.FOOTER, 0, 0)
  local final = c.final or not c.can_desegment
  local found, search = find_footer(c, s, pattern, math.max(s.search, s.next), final)
  finish_lost(c, s, search)
  s.search = s.next
  if found then
    s.mode, s.reason, s.section = "element", nil, nil
  elseif s.next < c.limit then
    return MORE
  end
end

function MODES.lost(c, s)
  finish_lost(c, s, c.limit)
end

function MODES.main_header(c, s)
  if have(c, s) < 8 then
    if not c.final then return 8 end
    lose(c, s, "the header is not complete")
    return
  end
  c.join(s, nil)
  local version = u32(c, s.next + 4)
  local item = emit(c, s, "main.header", s.next, 8, nil, "")
  show(c, item, "FileHeader", s.next)
  if version ~= K.QEMU_VM_FILE_VERSION then
    break_rule(item, "MFD402", "version " .. version)
  end
  s.next, s.mode, s.trusted = s.next + 8, "main_configuration", true
end

-- Show one subsection of the configuration; give its end, or nil and how many bytes are needed.
local function subsection(c, s, item, at)
  local available = c.limit - at
  if available < 2 then return nil, at - s.next + 2 end
  local after = at + 2 + u8(c, at + 1) + 4
  if c.limit < after then return nil, after - s.next end
  local name = raw(c, at + 2, after - at - 6)
  local stop = after
  if name == K.CONFIGURATION_PREFIX .. "target-page-bits" then
    stop = after + 4
  elseif name == K.CONFIGURATION_PREFIX .. "uuid" then
    stop = after + 16
  elseif name == K.CONFIGURATION_PREFIX .. "capabilities" then
    stop = after + 4
    if c.limit < stop then return nil, stop - s.next end
    for _ = 1, math.min(u32(c, after), 64) do
      if c.limit < stop + 1 then return nil, stop + 1 - s.next end
      stop = stop + 1 + u8(c, stop)
    end
  else
    return nil, nil
  end
  if c.limit < stop then return nil, stop - s.next end
  if not item then return stop end
  show(c, item, "SubsectionHeader", at)
  if name:find("bits") then
    show(c, item, "TargetPageBits", after)
    learn_page_size(s, 2 ^ math.min(u32(c, after), 20))
  elseif name:find("uuid") then
    show(c, item, "ConfigurationUuid", after)
  else
    local position = after + 4
    while position < stop do
      local length = u8(c, position)
      local capability = escape(raw(c, position + 1, length))
      item:add(F["main.capabilities"], range(c, position, 1 + length), capability)
      s.odd_blocks = capability
      position = position + 1 + length
    end
  end
  return stop
end

local function is_subsection(c, at)
  local prefix = K.CONFIGURATION_PREFIX
  if c.limit <= at then return nil, 1 end
  if u8(c, at) ~= SECTION.SUBSECTION then return false end
  if c.limit < at + 2 then return nil, 2 end
  if u8(c, at + 1) < #prefix then return false end
  if c.limit < at + 2 + #prefix then return nil, 2 + #prefix end
  return raw(c, at + 2, #prefix) == prefix
end

function MODES.main_configuration(c, s)
  local start = s.next
  if u8(c, start) ~= SECTION.CONFIGURATION then
    local item = c.tree:add(proto, range(c, start, 1))
    break_rule(item, "MFD403")
    s.mode = "element"
    return
  end
  local stop = have(c, s) >= 5 and start + 5 + u32(c, start + 1) or start + 5
  if stop - start > 4096 then
    lose(c, s, "not a configuration section")
    return
  end
  local ends = {}
  while true do
    local another, wanted = nil, stop - start + 1
    if c.limit >= stop and have(c, s) >= 5 then
      another, wanted = is_subsection(c, stop)
      wanted = wanted and stop - start + wanted
    end
    if another == nil then
      if not c.final then return wanted end
      if c.limit < stop or have(c, s) < 5 then
        lose(c, s, "the configuration is not complete")
        return
      end
      break
    end
    if not another then break end
    local after, needed = subsection(c, s, nil, stop)
    if not after then
      if needed and not c.final then return needed end
      lose(c, s, "not a configuration section")
      return
    end
    ends[#ends + 1] = stop
    stop = after
  end
  local length = u32(c, start + 1)
  local machine = escape(raw(c, start + 5, length))
  local item = emit(c, s, "main.configuration", start, stop - start, nil, machine)
  show(c, item, "ConfigurationHeader", start)
  item:add(F["main.machine"], visible(c, start + 5, length), machine)
  for _, at in ipairs(ends) do subsection(c, s, item, at) end
  s.next, s.mode = stop, "element"
end

local function show_section(item, group, section, with_id)
  if with_id then generated(item, group .. ".section_id", section.id) end
  if section.idstr ~= "" then
    generated(item, group .. ".idstr", section.idstr)
    generated(item, group .. ".instance_id", section.instance)
  end
end

local function begin_section(c, s, section, kind)
  s.section, s.after_setup = section, false
  local idstr = section.idstr
  if idstr == "" then
    s.mode = "guess"
  elseif idstr == "ram" and kind ~= SECTION.FULL then
    s.mode = "ram_record"
  elseif idstr == "vfio" or idstr:sub(-5) == "/vfio" then
    s.mode = "vfio_marker"
  else
    s.mode, s.body_start = "opaque", s.next
  end
end

local SECTION_KINDS = {
  [SECTION.START] = "main.section_start", [SECTION.PART] = "main.section_part",
  [SECTION.END] = "main.section_end", [SECTION.FULL] = "main.section_full",
}

local function section_start(c, s, kind)
  local start = s.next
  local wanted = have(c, s) >= 6 and 14 + u8(c, start + 5) or 6
  if have(c, s) < wanted then
    if not c.final then return wanted end
    lose(c, s, "not a whole element of a main stream")
    return
  end
  local values = read(c, "SectionStart", start)
  local section = {
    id = values.section_id, idstr = values.idstr, instance = values.instance_id,
  }
  s.sections[section.id] = section
  local item = emit(c, s, SECTION_KINDS[kind], start, wanted, nil,
    section.idstr .. " id " .. section.id)
  show(c, item, "SectionStart", start)
  s.next = start + wanted
  begin_section(c, s, section, kind)
end

local function section_part(c, s, kind)
  local start = s.next
  if have(c, s) < 5 then
    if not c.final then return 5 end
    lose(c, s, "not a whole element of a main stream")
    return
  end
  local id = u32(c, start + 1)
  if id >= SECTION_ID_LIMIT then
    lose(c, s, "not an element of a main stream", "MFD409")
    return
  end
  local known = s.sections[id]
  local section = known or { id = id, idstr = "", instance = 0 }
  local item = emit(c, s, SECTION_KINDS[kind], start, 5, nil, section.idstr .. " id " .. id)
  show(c, item, "SectionPart", start)
  show_section(item, "main", section)
  if not known and s.trusted then break_rule(item, "MFD407", "id " .. id) end
  s.next = start + 5
  begin_section(c, s, section, kind)
end

-- The first word of a body whose START was not captured tells what it is.
function MODES.guess(c, s)
  if have(c, s) < 8 then
    if not c.final then return 8 end
    s.mode, s.body_start = "opaque", s.next
    return
  end
  local high, low = u32(c, s.next), u32(c, s.next + 4)
  if high == 0xffffffff and MARKERS[low] then
    s.mode = "vfio_marker"
  elseif s.is_record(low % RAM_MASK) then
    s.mode = "ram_record"
  else
    s.mode, s.body_start = "opaque", s.next
  end
end

local function show_payload(c, s, item, schema, at, length)
  if schema == "PostcopyRamDiscard" then
    if length < 3 or length < 3 + u8(c, at + 1) then return false end
    local name = u8(c, at + 1)
    if (length - 3 - name) % 16 ~= 0 then return false end
    item:add(F["main.block_name"], range(c, at + 1, 1 + name), escape(raw(c, at + 2, name)))
    for position = at + 3 + name, at + length - 16, 16 do
      local text = u64(c, position) .. " " .. u64(c, position + 8)
      show(c, item:add(F["main.ranges"], range(c, position, 16), text), "DiscardRange", position)
    end
    return true
  end
  local wanted = 0
  for _, step in ipairs(SCHEMAS[schema]) do
    if step[2] == "counted" then
      if length <= wanted then return false end
      wanted = wanted + 1 + u8(c, at + wanted)
    else
      wanted = wanted + step[4]
    end
  end
  if wanted ~= length then return false end
  show(c, item, schema, at)
  return true
end

local function check_command(s, item, number, length)
  local command = COMMANDS[number]
  if not command then
    break_rule(item, "MFD410", "command " .. number)
    return
  end
  if command[2] and command[2] ~= length then
    break_rule(item, "MFD411", length .. " bytes, not " .. command[2])
  end
  if command[1] == "OPEN_RETURN_PATH" then
    if s.opened then break_rule(item, "MFD417") end
    s.opened = true
  elseif command[1] == "PING" and not s.opened and s.trusted then
    break_rule(item, "MFD412")
  elseif command[1] == "SWITCHOVER_START" then
    if s.switched then break_rule(item, "MFD511") end
    s.switched = true
  end
end

local function command(c, s)
  local start = s.next
  local wanted = have(c, s) >= 5 and 5 + u16(c, start + 3) or 5
  local whole = have(c, s) >= wanted
  if not whole and not c.final then return wanted end
  if have(c, s) < 5 then
    lose(c, s, "not a whole element of a main stream")
    return
  end
  local number, length = u16(c, start + 1), u16(c, start + 3)
  local row = COMMANDS[number]
  local name = row and row[1] or tostring(number)
  local item = emit(c, s, "main.command", start, wanted, nil, name)
  show(c, item, "CommandHeader", start)
  if row then generated(item, "main.command", name) end
  if row and row[3] and whole and length > 0 then
    local shown = show_payload(c, s, item, row[3], start + 5, length)
    if shown and name == "POSTCOPY_ADVISE" then learn_page_size(s, u64(c, start + 13)) end
  end
  check_command(s, item, number, length)
  if whole then
    s.next, s.mode = start + wanted, "element"
  else
    s.next = c.limit
    begin_body(c, s, start + wanted, "element", { what = "command " .. name })
  end
end

-- What is wrong with all packets together. Other channels may still be on their way when the main
-- stream ends, so this is known only when the capture was read once.
local function check_end(c, s, item)
  local migration = c.migration
  if c.fresh then migration.ended = true end
  for channel, syncs in pairs(migration.syncs) do
    if migration.flushes > 0 and syncs > migration.flushes then
      break_rule(item, "MFD302", channel .. " has " .. syncs .. " SYNC packets for "
        .. migration.flushes .. " flushes")
    elseif not c.fresh and not migration.damaged and syncs < migration.flushes then
      break_rule(item, "MFD301", channel .. " has " .. syncs .. " SYNC packets for "
        .. migration.flushes .. " flushes")
    end
  end
  if c.fresh or migration.damaged then return end
  for name, device in pairs(migration.devices) do
    if not device.config then
      break_rule(item, "MFD221", name)
    elseif device.count < device.config.idx + 1 then
      break_rule(item, "MFD220", name .. ": " .. device.config.idx + 1 - device.count .. " missing")
    end
  end
end

function MODES.element(c, s)
  local kind = u8(c, s.next)
  if kind == SECTION.EOF then
    local item = emit(c, s, "main.eof", s.next, 1, nil, "")
    item:add(F["main.type"], range(c, s.next, 1))
    check_end(c, s, item)
    s.next, s.mode = s.next + 1, "after_eof"
    return
  end
  if kind == SECTION.START or kind == SECTION.FULL then return section_start(c, s, kind) end
  if kind == SECTION.PART or kind == SECTION.END then return section_part(c, s, kind) end
  if kind == SECTION.COMMAND then return command(c, s) end
  if kind == SECTION.FOOTER then
    s.section, s.mode = nil, "footer"
    return
  end
  lose(c, s, "not an element of a main stream", "MFD409")
end

function MODES.footer(c, s)
  local start, section = s.next, s.section
  if section and s.footless then
    s.mode = "element"
    return
  end
  if u8(c, start) ~= SECTION.FOOTER then
    local verdict = looks_like_element(c, s, start, c.final)
    if verdict == nil then return MORE end
    if verdict then
      s.footless, s.mode = true, "element"
      break_rule(c.tree:add(proto, range(c, start, 1)), "MFD408", "there is none")
    else
      lose(c, s, "not an element of a main stream", "MFD408")
    end
    return
  end
  if have(c, s) < 5 then
    if not c.final then return 5 end
    lose(c, s, "not a whole element of a main stream")
    return
  end
  local id = u32(c, start + 1)
  local item = emit(c, s, "main.section_footer", start, 5, nil, "id " .. id)
  show(c, item, "SectionFooter", start)
  local shown = section or s.sections[id]
  if shown then show_section(item, "main", shown) end
  if section and id ~= section.id then
    break_rule(item, "MFD408", "id " .. id .. ", the section has " .. section.id)
  end
  s.next, s.mode, s.section = start + 5, "element", nil
end

-- A body that does not tell its length: the section's footer, with an element behind it, ends it.
function MODES.opaque(c, s)
  local section = s.section
  local search = math.max(s.next, s.search or s.next)
  local found, reached = find_footer(c, s, footer_of(section.id), search, c.final)
  if found then
    local length = found - s.body_start
    if length > 0 then
      local item = emit(c, s, "main.opaque", s.body_start, length, nil,
        section.idstr .. " " .. length .. " bytes")
      show_section(item, "main", section, true)
      generated(item, "main.data_length", long(length))
    end
    s.next, s.mode, s.search = found, "footer", nil
    return
  end
  -- A short body is shown in one piece; of a long one, what was searched is let go.
  local short = reached < c.limit or c.can_desegment and c.limit - s.next < OPAQUE_LIMIT
  if s.next == s.body_start and not c.final and short then
    s.search = reached
    return MORE
  end
  local stop = math.max(reached, s.next)
  if stop > s.next then
    local item = c.tree:add(proto, range(c, s.next, stop - s.next))
    item:append_text(", " .. s.channel .. " body of " .. section.idstr)
    summarise(c, s, "body of " .. section.idstr)
  end
  s.next, s.search = stop, nil
  if stop < c.limit then return MORE end
end

function MODES.after_eof(c, s)
  if u8(c, s.next) ~= SECTION.VMDESCRIPTION then
    s.mode = "trailing"
    return
  end
  if have(c, s) < 5 then
    if not c.final then return 5 end
    s.mode = "trailing"
    return
  end
  local start, length = s.next, u32(c, s.next + 1)
  local item = emit(c, s, "main.vmdescription", start, 5 + length, 5, length .. " bytes")
  show(c, item, "VmDescriptionHeader", start)
  s.next = start + 5
  c.body_under = item
  begin_body(c, s, start + 5 + length, "trailing", { what = "vmdescription" })
  c.body_item = s.body
end

function MODES.trailing(c, s)
  local item = undecoded(c, s, s.next, c.limit, "bytes behind the end of the stream")
  if item then break_rule(item, "MFD415") end
  s.next = c.limit
end
