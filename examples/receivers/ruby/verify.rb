require "openssl"

# The bytes that a secret of a subscription signs with.
def key_of(secret)
  return secret unless secret.start_with?("whsec_")

  key = secret.delete_prefix("whsec_").unpack1("m0")
  raise ArgumentError, "not a whole whsec_ secret" unless key.bytesize.between?(24, 64)

  key
end

# Why a request is no genuine delivery, or nil if it is one. `headers` is asked by names in lower
# case; `body` is as it came.
def refusal(headers, body, keys, now)
  id, sent_at = headers["webhook-id"].to_s, headers["webhook-timestamp"].to_s
  unless id.match?(/\A[^.]+\z/) && sent_at.match?(/\A[0-9]{1,12}\z/)
    return "webhook-id or webhook-timestamp is missing or unreadable"
  end
  return "signed more than 5 minutes from now" if (now - sent_at.to_i).abs > 300

  genuine = keys.map do |key|
    hmac = OpenSSL::HMAC.new(key, "SHA256") << "#{id}.#{sent_at}." << body
    "v1,#{[hmac.digest].pack("m0")}"
  end
  entries = headers["webhook-signature"].to_s.split(" ")
  matches = entries.product(genuine).any? { |entry, tag| OpenSSL.secure_compare(entry, tag) }
  "no signature in webhook-signature matches" unless matches
end
