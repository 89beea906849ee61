# The handler for Ruby over vectors: says of each whether it accepts it; run.sh says how to run it.
require "json"
require_relative ARGV[1]

def accepted?(vector)
  keys = vector["secrets"].map { |secret| key_of(secret) }
  body = vector["body"].unpack1("m0")
  refusal(vector["headers"], body, keys, vector["now"]).nil?
rescue ArgumentError
  false
end

File.foreach(ARGV[0], encoding: "UTF-8") do |line|
  vector = JSON.parse(line)
  next unless vector["scheme"] == "standard"

  puts "#{vector["name"]} #{accepted?(vector) ? "accepted" : "refused"}"
end
