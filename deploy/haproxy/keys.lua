-- The keys of the balancer: a file of `NAME KEY [requests a minute] [concurrent requests]` lines, or one bare key.
-- The file is read again when it changes; what is not valid is refused at the start, and later leaves the keys as they are.
-- entrypoint/key_file.py has the same rules, and tests/deploy/test_keys.py compares both. docs/how-to/keys.md explains them.

local PATH = os.getenv("API_KEY_FILE") or "/run/secrets/api-key"
local LONGEST, SHORTEST, DISTINCT, MOST, MOST_NAMES = 4096, 16, 6, 1000000, 1000
local MINUTE = 60

-- Raises a text that names the line, and never a key.
local function refuse(number, why)
    error("line " .. number .. ": " .. why, 0)
end

local function limit(number, word)
    if word == nil or word == "-" then
        return nil
    end
    if not word:find("^[1-9]%d*$") or #word > 7 or tonumber(word) > MOST then
        refuse(number, "a limit is a number from 1 to " .. MOST .. ", or - for none")
    end
    return math.tointeger(tonumber(word))
end

local function is_weak(key)
    local seen, distinct = {}, 0
    for character in key:gmatch(".") do
        if not seen[character] then
            seen[character], distinct = true, distinct + 1
        end
    end
    return #key < SHORTEST or distinct < DISTINCT
end

local function rows_of(text)
    local rows, number = {}, 0
    for raw in (text .. "\n"):gmatch("(.-)\n") do
        number = number + 1
        local line = raw:match("^[ \t\r]*(.-)[ \t\r]*$")
        if line ~= "" and line:sub(1, 1) ~= "#" then
            if line:find("[^\t\x20-\x7e]") then
                refuse(number, "only printable ASCII characters may stand there")
            end
            local words = {}
            for word in line:gmatch("[^ \t]+") do
                words[#words + 1] = word
            end
            rows[#rows + 1] = {number = number, words = words}
        end
    end
    return rows
end

local function holder_of(number, words)
    if #words < 2 or #words > 4 then
        refuse(number, "write NAME KEY [REQUESTS-A-MINUTE] [CONCURRENT]")
    end
    local name, key = words[1], words[2]
    if #name > 64 or not name:find("^%w[%w._-]*$") then
        refuse(number, "a name has up to 64 letters, digits, dots, dashes and underscores")
    end
    if #key > LONGEST then
        refuse(number, "the key is longer than " .. LONGEST .. " characters")
    end
    if is_weak(key) then
        refuse(number, "the key is weak; it needs " .. SHORTEST .. " characters, " .. DISTINCT .. " of them different")
    end
    return key, {name = name, per_minute = limit(number, words[3]), concurrent = limit(number, words[4])}
end

-- Returns the holders by key.
local function parse(data)
    local text = data:gsub("^\xEF\xBB\xBF", "")
    if not utf8.len(text) then
        error("the file is not UTF-8 text", 0)
    end
    local rows, holders, lines, names, count = rows_of(text), {}, {}, {}, 0
    if #rows == 0 then
        error("the file has no key", 0)
    end
    if #rows == 1 and #rows[1].words == 1 then
        if #rows[1].words[1] > LONGEST then
            refuse(rows[1].number, "the key is longer than " .. LONGEST .. " characters")
        end
        return {[rows[1].words[1]] = {name = "default"}}
    end
    for _, row in ipairs(rows) do
        local key, holder = holder_of(row.number, row.words)
        if holders[key] then
            refuse(row.number, "the same key as in line " .. lines[key])
        end
        local first = names[holder.name]
        if not first then
            count = count + 1
            names[holder.name] = {row = row.number, holder = holder}
        elseif first.holder.per_minute ~= holder.per_minute or first.holder.concurrent ~= holder.concurrent then
            refuse(row.number, holder.name .. " has other limits than in line " .. first.row)
        end
        holders[key], lines[key] = holder, row.number
    end
    if count > MOST_NAMES then
        error(count .. " names; at most " .. MOST_NAMES .. " are allowed", 0)
    end
    return holders
end

local function read()
    local file, why = io.open(PATH, "rb")
    if not file then
        error(why:gsub("^.*: ", ""), 0)
    end
    local data = file:read(1048577) or ""
    file:close()
    if #data > 1048576 then
        error("the file is larger than 1 MiB", 0)
    end
    return data
end

local function attempt(action, ...)
    local good, result = pcall(action, ...)
    return good and result or nil, not good and tostring(result) or nil
end

local data, trouble = attempt(read)
local holders
if data then
    holders, trouble = attempt(parse, data)
end
if not holders then
    error("API_KEY_FILE " .. PATH .. ": " .. trouble .. ". docs/how-to/keys.md has the format.", 0)
end

-- One line; `core.log` may write it twice, to the log and to the error output.
local function tell(text)
    io.stderr:write("dsv4: " .. text .. "\n")
end

-- Once a second. Two equal reads make a change, as an editor may not have written all of it at the first.
local seen
local function look()
    local now, why = attempt(read)
    if now == data then
        seen, trouble = nil, nil
        return
    end
    if now and now ~= seen then
        seen = now
        return
    end
    local found
    if now then
        found, why = attempt(parse, now)
    end
    if found then
        data, holders, seen, trouble = now, found, nil, nil
        tell("key file " .. PATH .. ": read again.")
    elseif why ~= trouble then
        trouble = why
        tell("KEY FILE NOT VALID: " .. PATH .. ": " .. why .. ". The keys from before the change stay; mend it.")
    end
end

core.register_task(function()
    while true do
        core.msleep(1000)
        look()
    end
end)

-- The one key of a request, as Bearer, in x-api-key, or the same in both; nil where it is none or unclear.
local function key_of(headers)
    local bearers, plain = headers["authorization"], headers["x-api-key"]
    if bearers and bearers[1] or plain and plain[1] then
        return nil -- indices begin at 0: it is there twice
    end
    local key = plain and plain[0]
    if bearers then
        local scheme, bearer = bearers[0]:match("^(%a+) ([^ ].*)$")
        if not scheme or scheme:lower() ~= "bearer" or key and key ~= bearer then
            return nil
        end
        return bearer
    end
    return key
end

core.register_action("key", {"http-req"}, function(txn)
    local key = key_of(txn.http:req_get_headers())
    local holder = key and holders[key]
    if holder then
        txn:set_priv(holder)
        txn:set_var("txn.key_name", holder.name)
    end
end)

-- By name: when requests were let in during the last minute (a ring), and counts for /keys.
local admitted, let_in, refused = {}, {}, {requests = {}, concurrent = {}}

-- Returns the seconds until another request may come, or nil after counting this one.
local function wait_of(holder)
    local most, now = holder.per_minute, core.now().sec + core.now().usec / 1e6
    local ring = admitted[holder.name]
    if not ring or ring.most ~= most then
        ring = {most = most, at = 0}
        admitted[holder.name] = ring
    end
    local oldest = ring[ring.at]
    if oldest and now - oldest < MINUTE then
        return math.max(1, math.ceil(MINUTE - (now - oldest)))
    end
    ring[ring.at] = now
    ring.at = (ring.at + 1) % most
    return nil
end

local function requests(most, what)
    return most .. (most == 1 and " request " or " requests ") .. what
end

-- After `txn.key_running` was set to the requests of this name, this one among them.
core.register_action("key_admit", {"http-req"}, function(txn)
    local holder, over, wait, most = txn:get_priv(), nil, nil, nil
    if holder.concurrent and txn:get_var("txn.key_running") > holder.concurrent then
        over, wait, most = "concurrent", 1, requests(holder.concurrent, "at once")
    elseif holder.per_minute then
        wait = wait_of(holder)
        over, most = wait and "requests", requests(holder.per_minute, "a minute")
    end
    if over then
        refused[over][holder.name] = (refused[over][holder.name] or 0) + 1
        txn:set_var("txn.key_over", "This key may send " .. most .. ". Retry in " .. wait .. " s.")
        txn:set_var("txn.key_wait", wait)
    else
        let_in[holder.name] = (let_in[holder.name] or 0) + 1
    end
end)

local function series(lines, metric, counts, labels)
    for name, count in pairs(counts) do
        lines[#lines + 1] = metric .. '{name="' .. name .. '"' .. labels .. "} " .. count
    end
end

core.register_service("key_metrics", "http", function(applet)
    local lines = {"# TYPE dsv4_balancer_key_requests_total counter"}
    series(lines, "dsv4_balancer_key_requests_total", let_in, "")
    lines[#lines + 1] = "# TYPE dsv4_balancer_key_refused_total counter"
    for over, counts in pairs(refused) do
        series(lines, "dsv4_balancer_key_refused_total", counts, ',limit="' .. over .. '"')
    end
    local body = table.concat(lines, "\n") .. "\n"
    applet:set_status(200)
    applet:add_header("content-type", "text/plain; version=0.0.4")
    applet:add_header("content-length", tostring(#body))
    applet:start_response()
    applet:send(body)
end)
