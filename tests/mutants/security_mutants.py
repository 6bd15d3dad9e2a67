"""The mutants of the protections: each of them removes one protection against an intruder."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_SIGNATURES, _REFERENCES = "streams/signatures.py", "streams/record_reader.py"
_MIDDLEWARE, _REGISTRY = "station/middleware.py", "models/registry/local_registry.py"
_SUBMISSION, _PRIVATE = "station/uploads/submission.py", "streams/private_files.py"

_TEST_SIGNATURES = "tests/streams/test_signatures.py"
_TEST_ACCESS = "tests/security/test_kafka_access.py"
_TEST_ARCHIVIST = "tests/agents/archivist/test_archivist.py -k names_only_pictures"
_TEST_UPLOADS = "tests/station/uploads/test_views.py"
_TEST_LOG_IN = "tests/station/accounts/test_log_in.py"
_TEST_AUDIT = "tests/station/accounts/test_audit_log.py"
_TEST_REGISTRY = "tests/models/registry/test_local_registry.py"
_TEST_PRIVATE = "tests/security/test_private_files.py"
_TEST_SECRETS = "tests/streams/test_secrets.py"

SECURITY_MUTANTS = (
    # 1. Kafka: who may write what
    Mutant(
        "gateway may write pictures of the upload line",
        "streams/kafka_access.py",
        '"gateway": [names.images(line) for line in lines if line != uploads],',
        '"gateway": [names.images(line) for line in lines],',
        f"{_TEST_ACCESS} -k 'reads_and_writes'",
    ),
    Mutant(
        "broker asks nobody for a log-in",
        "deploy/kafka/broker.py",
        '    protocol = "SASL_PLAINTEXT" if own_password else "PLAINTEXT"\n',
        '    protocol, own_password = "PLAINTEXT", ""\n',
        f"{_TEST_ACCESS} -k without_a_password",
    ),
    Mutant(
        "password of the user broker goes to any program at the port",
        "deploy/kafka/broker.py",
        "        if not self._is_listening():\n            raise ConnectionRefusedError",
        "        if False:\n            raise ConnectionRefusedError",
        "tests/security/test_ports.py -k gets_no_password",
    ),
    Mutant(
        "wrong signature accepted",
        _SIGNATURES,
        "        except InvalidSignature:\n            continue\n",
        "        except InvalidSignature:\n            pass\n",
        _TEST_SIGNATURES,
    ),
    Mutant(
        "every role may sign on every topic",
        _SIGNATURES,
        "    permitted = next((each for each in signers if each == role), None)\n",
        "    permitted = next((each for each in SIGNING_ROLES if each == role), None)\n",
        _TEST_SIGNATURES,
    ),
    Mutant(
        "short key signs commands",
        "streams/settings/sections.py",
        "        if key and max(key, second) < MIN_COMMAND_KEY_CHARACTERS:\n",
        "        if False:\n",
        "tests/streams/test_settings.py -k wrong_setting",
    ),
    Mutant(
        "command signed with any key accepted",
        "streams/commands.py",
        "    if keys and not any(",
        "    if keys and not signature and not any(",
        "tests/streams/test_commands.py",
    ),
    # 2. What a record refers to
    Mutant(
        "verdict may name a picture of another topic",
        _REFERENCES,
        "    if isinstance(record, Verdict) and record.image.topic != names.images(line):\n",
        "    if False and isinstance(record, Verdict):\n",
        _TEST_ARCHIVIST,
    ),
    Mutant(
        "finding may name a picture as its heat map",
        _REFERENCES,
        "    if isinstance(record, Finding) and record.heat_map and not is_heat_map_address(record.heat_map):\n",
        "    if False and isinstance(record, Finding):\n",
        _TEST_ARCHIVIST,
    ),
    Mutant(
        "picture of another part shown",
        "station/pictures/part_picture_reader.py",
        "    if found != part.part_key:\n",
        "    if False:\n",
        "tests/station/pictures/test_part_picture_reader.py -k forged",
    ),
    # 3. Uploads
    Mutant(
        "uploads may have as many pixels as pictures of cameras",
        _SUBMISSION,
        "PictureLimits.from_settings(settings.for_uploads())",
        "PictureLimits.from_settings(settings)",
        _TEST_UPLOADS,
    ),
    Mutant(
        "an account has no budget of pixels",
        _SUBMISSION,
        "        _check_pixels(user, header.width_px * header.height_px)\n",
        "",
        _TEST_UPLOADS,
    ),
    Mutant(
        "an account has no budget of bytes",
        _SUBMISSION,
        "    _check_bytes(user, len(picture))\n",
        "",
        "tests/station/uploads/test_api.py -k megabytes",
    ),
    Mutant(
        "a picture may have any number of pieces",
        "models/pictures/png.py",
        "    limit = _MAX_CHUNKS + len(value) // _BYTES_PER_CHUNK\n",
        "    limit = len(value)\n",
        "tests/models/pictures/test_damaged_files.py -k small_pieces",
    ),
    Mutant(
        "uploads decoded at the priority of the inspector",
        "models/pictures/decoder_process.py",
        "    os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)\n",
        "",
        "tests/models/pictures/test_decoder_process.py -k processor_time",
    ),
    Mutant(
        "compressed body unpacked up to the limit of a picture",
        "agents/gateway/upload_request.py",
        "                if self._unpacked > max(_FREE_UNPACKED_BYTES, _MAX_UNPACK_RATIO * self._taken):\n",
        "                if False:\n",
        "tests/agents/gateway/test_upload_camera.py -k far_more_bytes",
    ),
    # 4. Strangers and single accounts
    Mutant(
        "header of a request may take for ever",
        "station/http_protocol.py",
        "        self._header_timer = self.loop.call_later(self._header_time_s, transport.abort)\n",
        "",
        "tests/station/test_http_protocol.py",
    ),
    Mutant(
        "body may trickle for ever",
        _MIDDLEWARE,
        "        self._began_s = self._began_s if self._began_s is not None else loop.time()\n",
        "        self._began_s = loop.time()\n",
        "tests/station/test_middleware.py",
    ),
    Mutant(
        "one network may hold all connections",
        "streams/server_limits.py",
        "            if self._counts[network] >= self._max_per_network:\n",
        "            if False:\n",
        "tests/streams/test_server_limits.py",
    ),
    Mutant(
        "one address may hold all connections of the gateway",
        "agents/gateway/web_server.py",
        "ConnectionLimits(max_per_address, _MAX_CONNECTIONS)",
        "ConnectionLimits(_MAX_CONNECTIONS, _MAX_CONNECTIONS)",
        "tests/agents/gateway/test_upload_camera.py -k 'keep_no_camera_out or one_address'",
    ),
    Mutant(
        "one account may open all live pages",
        "station/live/event_stream.py",
        ">= MAX_ACCOUNT_STREAMS:\n",
        ">= MAX_STREAMS:\n",
        "tests/station/live/test_event_stream.py",
    ),
    Mutant(
        "a download counts only until its first byte",
        "station/account_limits.py",
        "                _call_at_end(response, counts.pop_all().close)\n",
        "                pass\n",
        "tests/station/history/test_export.py -k downloads",
    ),
    Mutant(
        "any number of log-ins of one address at once",
        _MIDDLEWARE,
        "        if self._log_ins[client] >= _MAX_CLIENT_LOG_INS:\n",
        "        if False:\n",
        "tests/security/test_station_under_attack.py -k log_ins",
    ),
    # 5. Files
    Mutant("new files readable by everybody", _PRIVATE, "PRIVATE_UMASK = 0o077", "PRIVATE_UMASK = 0o022", _TEST_PRIVATE),
    Mutant("role starts with exposed files", _PRIVATE, "    if exposed:\n", "    if False:\n", _TEST_PRIVATE),
    Mutant(
        "database is not checked",
        _PRIVATE,
        'for suffix in ("", "-wal", "-shm", "-journal"))',
        "for suffix in ())",
        _TEST_PRIVATE,
    ),
    Mutant(
        "others may write what the plant trusts",
        _PRIVATE,
        "    replaceable = find_replaceable_paths(settings, settings_file)\n",
        "    replaceable: list[Path] = []\n",
        _TEST_PRIVATE,
    ),
    # 6. Log-in
    Mutant(
        "wrong tokens at the gateway are not delayed",
        "agents/gateway/token_check.py",
        "        wait_s = self._find_wait_s(network)\n",
        "        wait_s = 0.0\n",
        "tests/agents/gateway/test_token_check.py",
    ),
    Mutant(
        "right token accepted during a delay, which shows which guess is right",
        "agents/gateway/token_check.py",
        "        if (is_known or not wait_s) and hmac",
        "        if hmac",
        "tests/agents/gateway/test_token_check.py",
    ),
    Mutant(
        "repeated wrong token counts as a guess",
        "agents/gateway/token_check.py",
        "        is_repeat = network in self._wrong and digest in self._wrong[network].digests\n",
        "        is_repeat = False\n",
        "tests/agents/gateway/test_token_check.py",
    ),
    Mutant(
        "gateway forgets at its restart which networks had the right token",
        "agents/gateway/token_check.py",
        "write_atomically(self._file, json.dumps(list(self._clients)), mode=0o600)",
        "write_atomically(self._file, json.dumps([]), mode=0o600)",
        "tests/agents/gateway/test_token_check.py",
    ),
    Mutant(
        "X-Forwarded-For believed from everybody",
        "streams/client_address.py",
        "        if not _is_within(address, networks) or not _is_address(hop):\n",
        "        if not _is_address(hop):\n",
        f"{_TEST_LOG_IN} -k outermost",
    ),
    Mutant(
        "many names from one network are not delayed",
        "station/accounts/delays.py",
        '        DelayRule(_make_key("network", network), many, min(longest_s, _LONGEST_NETWORK_DELAY_S)),\n',
        "",
        f"{_TEST_LOG_IN} -k 'many_names or delay'",
    ),
    Mutant(
        "API tokens outlive a new password",
        "station/accounts/views.py",
        "        ended = ApiToken.revoke_all(user)\n",
        "        ended = 0\n",
        "tests/station/accounts/test_views.py -k tokens",
    ),
    Mutant(
        "API tokens never end",
        "station/accounts/models.py",
        "filter(Q(expires_at=None) | Q(expires_at__gt=now), user__is_active=True)",
        "filter(user__is_active=True)",
        "tests/station/accounts/test_models.py -k token",
    ),
    Mutant(
        "guesses at the old password are not delayed",
        "station/accounts/delays.py",
        '    return [DelayRule(_make_key("old password", str(account)), station.log_in_failures,',
        '    return [DelayRule(_make_key("old password", str(account)), 10**6 + station.log_in_failures,',
        "tests/station/accounts/test_views.py -k guesses",
    ),
    Mutant(
        "guesses at the codes of the app are not delayed",
        "station/accounts/delays.py",
        '    return [DelayRule(_make_key("code", str(account)), _FREE_WRONG_CODES,',
        '    return [DelayRule(_make_key("code", str(account)), 10**6,',
        "tests/station/accounts/test_second_factor.py -k codes",
    ),
    Mutant(
        "second factor is not asked for",
        "station/accounts/log_in.py",
        "        if user is not None and any(devices_for_user(user)):\n",
        "        if False:\n",
        "tests/station/accounts/test_second_factor.py",
    ),
    Mutant(
        "recovery code works more than once",
        "station/accounts/models.py",
        "        deleted, _ = cls.objects.filter(user=user, sha256=_hash(letters)).delete()\n",
        "        deleted = cls.objects.filter(user=user, sha256=_hash(letters)).count()\n",
        "tests/station/accounts/test_second_factor.py",
    ),
    Mutant(
        "password of words of the plant accepted",
        "station/accounts/plant_words.py",
        '            rest = rest.replace(word, "")\n',
        "            pass\n",
        "tests/station/accounts/test_views.py -k words_of_the_plant",
    ),
    Mutant(
        "second factor removed without a code",
        "station/accounts/second_factor.py",
        "        if is_right:\n            return new_hash\n",
        "        return new_hash\n",
        "tests/station/accounts/test_second_factor.py",
    ),
    Mutant(
        "other sessions outlive a change of the second factor",
        "station/accounts/second_factor.py",
        ".update(password=new_hash)",
        ".update(password=user.password)",
        "tests/station/accounts/test_second_factor.py",
    ),
    Mutant(
        "a removed second factor leaves the sessions of a lost phone",
        "station/accounts/forms.py",
        "                end_sessions(user)\n",
        "",
        "tests/station/accounts/test_second_factor.py",
    ),
    Mutant(
        "recovery codes of any account accepted",
        "station/accounts/models.py",
        "filter(user=user, sha256=_hash(letters)).delete()",
        "filter(sha256=_hash(letters)).delete()",
        "tests/station/accounts/test_second_factor.py",
    ),
    Mutant(
        "session in use never ends",
        "station/accounts/log_in.py",
        "            if has_session_ended(request.session):\n",
        "            if False:\n",
        f"{_TEST_LOG_IN} -k session",
    ),
    Mutant(
        "cookies of another host accepted behind TLS",
        "station/configuration.py",
        '    return f"__Host-{name}" if is_secure else name\n',
        "    return name\n",
        "tests/station/test_configuration.py -k cookies",
    ),
    # 7. Audit log
    Mutant(
        "hash of an audit entry covers no earlier entry",
        "station/accounts/models.py",
        'hashlib.sha256(f"{previous}\\n{content}".encode())',
        'hashlib.sha256(f"\\n{content}".encode())',
        _TEST_AUDIT,
    ),
    Mutant(
        "failed log-ins missing in the audit log",
        "station/accounts/log_in.py",
        '        AuditEntry.record(None, "log-in failed", self._attempted_name)\n',
        "",
        f"{_TEST_LOG_IN} -k audit_log",
    ),
    Mutant(
        "uploads missing in the audit log",
        _SUBMISSION,
        '    AuditEntry.record(user, "uploaded", str(upload.part_id), name=upload.name, sha256=upload.sha256, by_api=by_api)\n',
        "",
        "tests/station/browser/test_api_calls.py -k audit_log",
    ),
    # 8. Uploads of others
    Mutant(
        "live page of the uploads shown to everybody",
        "station/accounts/access.py",
        '    return line != current_settings().station.upload_line or "administer" in get_rights(user)\n',
        "    return True\n",
        "tests/station/live/test_views.py",
    ),
    Mutant(
        "uploads of others shown to everybody",
        "station/uploads/models.py",
        "    return Upload.objects.filter(owner_id=user.pk) if user.pk is not None else Upload.objects.none()\n",
        "    return Upload.objects.all()\n",
        _TEST_UPLOADS,
    ),
    # 9. Registry
    Mutant(
        "huge file of a version is hashed",
        _REGISTRY,
        "        if stat.st_size != entry.bytes:\n",
        "        if False:\n",
        _TEST_REGISTRY,
    ),
    Mutant(
        "files of a version hashed at every look",
        _REGISTRY,
        "            if identity not in self._found:\n",
        "            if True:\n",
        _TEST_REGISTRY,
    ),
    Mutant(
        "copies of a version's files are not compared with the manifest",
        _REGISTRY,
        "    expect_checksum(digest.hexdigest(), entry, str(source))\n",
        "",
        "tests/security/test_exchanged_versions.py",
    ),
    Mutant(
        "unsigned manifest accepted",
        _REGISTRY,
        "    if is_manifest_signed(public_keys, name, manifest, signature):\n",
        "    if True:\n",
        "tests/models/registry/test_signed_manifests.py",
    ),
    # 10. Secrets in output
    Mutant(
        "passwords in addresses are shown",
        "streams/secrets.py",
        "        return mask_address(self.get_secret_value())\n",
        "        return self.get_secret_value()\n",
        _TEST_SECRETS,
    ),
    Mutant(
        "secrets in the log",
        "streams/logs.py",
        "        record.msg, record.args = mask_secrets(_format_message(record)), ()\n",
        "        record.msg, record.args = _format_message(record), ()\n",
        _TEST_SECRETS,
    ),
    Mutant(
        "secrets on health pages",
        "streams/health.py",
        "                    body = mask_secrets(body.decode()).encode()\n",
        "                    pass\n",
        _TEST_SECRETS,
    ),
    # 11. Supply chain
    Mutant(
        "broker uses a jar with a known hole",
        "deploy/kafka/kafka_jars.sha256",
        "lz4-java-1.11.2.jar",
        "lz4-java-1.8.0.jar",
        "tests/security/test_supply_chain.py",
    ),
    Mutant(
        "changed jars are used",
        "deploy/kafka/java.py",
        "    if changed:\n",
        "    if False:\n",
        "tests/deploy/kafka/test_java.py",
    ),
    # 12. Small faults
    Mutant(
        "texts of any length in records",
        _REFERENCES,
        '        if len(text) > longest or "\\0" in text:\n',
        '        if "\\0" in text:\n',
        "tests/streams/test_record_bounds.py",
    ),
    Mutant(
        "numbers of any size in records",
        _REFERENCES,
        "                if abs(value) > largest:\n",
        "                if False:\n",
        "tests/streams/test_record_bounds.py",
    ),
    Mutant(
        "dead letters control the terminal",
        "deploy/cli/dead_letters.py",
        "    click.echo(make_printable(text))\n",
        "    click.echo(text)\n",
        "tests/deploy/cli/test_dead_letters.py -k control",
    ),
    Mutant(
        "looking at the review page reserves a part",
        "station/reviews/views.py",
        "    return _render_review(request, reserve=False)\n",
        '    return _show_next(request, None, "")\n',
        "tests/station/reviews/test_views.py tests/station/test_safe_requests.py",
    ),
)
