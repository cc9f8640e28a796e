-- What tests/suites/real.rs has Lua do: `work.lua DIRECTORY` works beneath it, `work.lua read DIRECTORY` looks at what was
-- left there, and `work.lua count` counts the lines of standard input.

local function walk(path, seen)
    for _, name in ipairs(fs.list(path)) do
        local below = path .. "/" .. name
        local directory, size, time = fs.stat(below)
        assert(time > 1700000000, "a time of now")
        if directory then
            seen.directories = seen.directories + 1
            walk(below, seen)
        else
            seen.files = seen.files + 1
            local file = assert(io.open(below))
            local text = file:read("a")
            file:close()
            assert(#text == size and text == "this is " .. below:match("%d+/%d+$") .. "\n", below .. ": " .. text)
        end
    end
    return seen
end

local function report(path)
    local seen = walk(path .. "/tree", { files = 0, directories = 0 })
    print(("%d files, %d directories"):format(seen.files, seen.directories))
end

if arg[1] == "read" then
    return report(arg[2])
elseif arg[1] == "count" then
    local lines, bytes = 0, 0
    for line in io.lines() do
        lines, bytes = lines + 1, bytes + #line + 1
    end
    return print(lines .. " lines, " .. bytes .. " bytes")
end

local base = arg[1]
print("arguments: " .. table.concat(arg, "|"))
print(os.getenv("COLOUR"))

-- Many small files.
fs.mkdir(base .. "/tree")
for d = 0, 249 do
    fs.mkdir(("%s/tree/%d"):format(base, d))
    for f = 0, 9 do
        local file = assert(io.open(("%s/tree/%d/%d"):format(base, d, f), "w"))
        file:write("this is ", d, "/", f, "\n")
        file:close()
    end
end
report(base)

-- One file, read and written in place.
local name = base .. "/log"
local file = assert(io.open(name, "w+"))
assert(file:setvbuf("full", 512))
for n = 1, 10000 do
    file:write(("%08d\n"):format(n))
end
assert(file:seek("set", 9 * 4999) == 44991 and file:read("n") == 5000)
assert(file:seek("set", 0) and file:write("first") and file:seek("end") == 90000)
file:close()
file = assert(io.open(name, "a"))
assert(file:write("last\n"))
file:close()
local count, last = 0, nil
for line in io.lines(name) do
    count, last = count + 1, line
    assert(count > 1 or line == "first001")
end
assert(count == 10001 and last == "last")

-- Names.
assert(os.rename(name, base .. "/moved"))
assert(not io.open(name), "it has moved")
assert(os.remove(base .. "/moved"))
local gone, why, code = os.remove(base .. "/moved")
assert(gone == nil and why:find("No such file"), why)
gone, why = os.remove(base .. "/tree")
assert(gone == nil, "a directory that is full stays")
gone, why = io.open("/scripts/new", "w")
assert(gone == nil and why:find("Read%-only"), why)
assert(not pcall(fs.mkdir, base .. "/tree"), "it is there already")

-- Errors that are caught, at some depth, and threads that yield across them.
local function deep(n)
    if n == 0 then error({ code = 42 }) end
    return 1 + deep(n - 1)
end
local fine, thrown = pcall(deep, 10000)
assert(not fine and thrown.code == 42)
local routine = coroutine.wrap(function()
    for n = 1, 3 do
        pcall(function() coroutine.yield(n); error("again") end)
    end
    return "end"
end)
assert(routine() == 1 and routine() == 2 and routine() == 3 and routine() == "end")
assert(not pcall(string.rep, "x", 1 << 40), "more than there is")

-- Time passes, and the calendar is right.
local before = os.clock()
for _ = 1, 1000000 do end
assert(os.clock() > before)
assert(os.date("!%Y-%m-%d %H:%M:%S", 951782400) == "2000-02-29 00:00:00")
print("all done")
