# A receiver: WEBHOOK_SECRETS="my-secret-123" ruby server.rb
#
# While a secret is rotated, both stand there with a space between. Listens on 127.0.0.1, on PORT or
# 9000. WEBrick is a gem since Ruby 3.0: `gem install webrick`, or Debian's `ruby-webrick`.
require "json"
require "webrick"
require_relative "verify"

KEYS = ENV.fetch("WEBHOOK_SECRETS").split.map { |secret| key_of(secret) }
BODY_MAX = 1024 * 1024
SEEN_MAX = 100_000
seen = {}
lock = Mutex.new

# Stores it and returns; the work comes later. If this raises, the event comes again.
def accept(event)
  puts "accepted #{event["type"]} #{event["id"]}"
  $stdout.flush
end

server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: ENV.fetch("PORT", "9000").to_i,
                                 AccessLog: [])
server.mount_proc("/") do |request, response|
  body = String.new # as it came: parsed and written again, it has other bytes
  request.body do |part|
    body << part
    raise WEBrick::HTTPStatus::RequestEntityTooLarge if body.bytesize > BODY_MAX
  end
  why = refusal(request, body, KEYS, Time.now.to_i)
  if why
    response.status, response.body = 401, why
  else
    id = request["webhook-id"]
    lock.synchronize do # the same event, come twice at once, is accepted once
      unless seen[id]
        accept(JSON.parse(body))
        seen[id] = true
        seen.shift if seen.size > SEEN_MAX # the oldest
      end
    end
    response.body = "OK"
  end
end
%w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
server.start
